"""A file against its source: every kind is derived again, and what was altered is named."""

import ctypes
import json
import shutil

import numpy as np
import pytest
from hfmaker import make_hf

from ggq import cli
from ggq.converters.convert import convert
from ggq.converters.imatrix import write_imatrix
from ggq.converters.provenance import read_provenance
from ggq.converters.verify import Settings, verify
from ggq.errors import FormatError, UsageError
from ggq.gguf import GGUFWriter, open_gguf, spec
from ggq.gguf.copy import copy_tensors

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("verify")


@pytest.fixture(scope="module")
def source(work):
    """A model whose rows hold whole blocks of 256."""
    return make_hf(work / "my-model", num_hidden_layers=1, intermediate_size=256)


@pytest.fixture(scope="module")
def matrix(work, source):
    (base,) = convert(source, work / "base.gguf", "F32")
    rng, sums, counts = np.random.default_rng(3), {}, {}
    with open_gguf(base) as file:
        for name, t in file.tensors.items():
            if len(t.shape) > 1 and name != "token_embd.weight":
                sums[name] = np.exp(rng.standard_normal((1, t.shape[-1]))).astype("f4")
                counts[name] = np.ones(1, np.float32)
    path = work / "imatrix.gguf"
    write_imatrix(path, sums, counts, "numbers", (1, 512))
    return path


@pytest.fixture(scope="module")
def made(work, source):
    (path,) = convert(source, work / "made.gguf", "Q4_K_M")
    return path


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copy(made, tmp_path / "copy.gguf")


@pytest.fixture
def ggq(capsys):
    def run(*args):
        code = cli.main([str(a) for a in args])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def flip(path, at, bit=0):
    """Flip one bit of a file's byte."""
    with open(path, "r+b") as file:
        file.seek(at)
        (value,) = file.read(1)
        file.seek(at)
        file.write(bytes([value ^ 1 << bit]))


def rewritten(path, out, change=lambda writer: None, source=None):
    """Write the file again with other keys, and none of ggq's own where ``change`` is None."""
    with open_gguf(path) as file, GGUFWriter(out, force=True) as writer:
        skip = [k for k in file.metadata if k.startswith("ggq.")] if change is None else ()
        writer.copy_metadata(file.metadata, skip)
        if change is not None:
            change(writer)
        copy_tensors(file, writer)
    return out


@pytest.mark.parametrize(
    "kind", ["F32", "F16", "BF16", "Q8_0", "Q4_K_M", "Q2_K", "IQ4_XS", "TQ2_0"]
)
def test_plain_files_are_verified(work, source, kind):
    (path,) = convert(source, work / f"{kind}.gguf", kind)
    verdict = verify(path, source)
    assert verdict.is_verified and not verdict.notes
    assert verdict.n_same == verdict.n_tensors == 12 and verdict.n_keys > 20


def test_the_command_says_so(ggq, made, source):
    code, out, err = ggq("verify", made, "--source", source, "-q")
    assert (code, err) == (0, "") and "verified (12 tensors and" in out


@pytest.mark.parametrize("kind", ["Q4_K_M", "IQ2_XS"])
def test_importance(ggq, work, source, matrix, kind, tmp_path):
    here = shutil.copy(matrix, tmp_path / "imatrix.gguf")
    (path,) = convert(source, tmp_path / "m.gguf", kind, imatrix=here, provenance=True)
    assert verify(path, source).is_verified  # it lies where it lay
    assert verify(path, source, Settings(imatrix=matrix)).is_verified
    here.unlink()
    verdict = verify(path, source)
    assert not verdict.differs and "imatrix.gguf is not here" in verdict.unknown[0]
    assert 0 < verdict.n_same < verdict.n_tensors  # the embedding was not measured
    code, _, err = ggq("verify", path, "--source", source, "-q")
    assert code == 1 and "not verified" in err and "--imatrix" in err
    sums = {"blk.0.ffn_up.weight": np.ones((1, 256), np.float32)}
    other = tmp_path / "other.gguf"
    write_imatrix(other, sums, {"blk.0.ffn_up.weight": np.ones(1)}, "", (1, 512))
    with pytest.raises(UsageError, match="is not the matrix that"):
        verify(path, source, Settings(imatrix=other))


@pytest.mark.parametrize("first", ["F16", "Q8_0"])
def test_requantized_files(work, source, first, tmp_path):
    (base,) = convert(source, tmp_path / "base.gguf", first)
    (path,) = convert(base, tmp_path / "m.gguf", "Q4_K_M", allow_requantize=True)
    assert verify(path, base).is_verified
    (told,) = convert(source, tmp_path / "told.gguf", first, provenance=True)
    (again,) = convert(told, tmp_path / "n.gguf", "Q4_K_M", allow_requantize=True)
    assert verify(again, told).is_verified  # what the source says of its making is not carried over
    moved = shutil.move(base, tmp_path / "moved.gguf")
    verdict = verify(path, moved)
    assert verdict.is_verified and "ggq.source" in verdict.notes[0]
    if first == "Q8_0":
        assert verify(path, source).differs  # not what the folder itself gives


def test_odd_widths_fall_back_and_are_verified(tmp_path):
    folder = make_hf(tmp_path / "odd", **SMALL)
    (path,) = convert(folder, tmp_path / "m.gguf", "Q4_K_M", tensor_types=["ffn_down=Q5_1"])
    verdict = verify(path, folder)
    assert verdict.is_verified


def test_other_options_are_seen_in_the_file(source, tmp_path):
    (path,) = convert(source, tmp_path / "m.gguf", "Q4_K_M", pure=True, output_tensor_type="Q8_0")
    assert verify(path, source).is_verified


def test_files_of_other_programs(source, made, tmp_path):
    path = rewritten(made, tmp_path / "other.gguf", None)
    verdict = verify(path, source)
    assert verdict.is_verified and not verdict.notes
    (halves,) = convert(source, tmp_path / "half.gguf", "Q4_K_M", via="f16")
    assert verify(halves, source).is_verified
    path = rewritten(halves, tmp_path / "other-half.gguf", None)
    verdict = verify(path, source)
    assert verdict.is_verified and "by way of F16" in verdict.notes[0]


@pytest.mark.parametrize("base", ["F32", "F16"])
def test_files_of_llama_cpps_own_quantizer(source, base, tmp_path):
    api = pytest.importorskip("llama_cpp")
    (halves,) = convert(source, tmp_path / "base.gguf", base, provenance=True)
    params = api.llama_model_quantize_default_params()
    params.ftype, params.nthread = 15, 1  # Q4_K_M
    path = tmp_path / "theirs.gguf"
    code = api.llama_model_quantize(str(halves).encode(), str(path).encode(), ctypes.byref(params))
    assert code == 0
    assert verify(path, halves).is_verified
    verdict = verify(path, source)  # the keys of ggq in it are those of the file it was made of
    assert verdict.is_verified and any("by way of F16" in n for n in verdict.notes) == (
        base == "F16"
    )
    with open_gguf(path) as file:
        assert read_provenance(file) is None and "ggq.provenance" in file.metadata
        info = file.tensors["blk.0.ffn_up.weight"]
    flip(path, info.offset + 3)
    assert "tensor blk.0.ffn_up.weight" in verify(path, source).differs[0]


@pytest.mark.parametrize("kind", ["Q4_1", "Q4_K_M"])
def test_checkpoints_that_are_quantized(kind, tmp_path):
    from quantmaker import GPTQ, gptq, make_pair

    folder, *_ = make_pair(tmp_path / "hf", gptq, GPTQ)
    (path,) = convert(folder, tmp_path / "m.gguf", kind)
    assert verify(path, folder).is_verified


def test_a_renamed_folder_is_the_same_source(source, made, tmp_path):
    renamed = shutil.copytree(source, tmp_path / "another-name")
    verdict = verify(made, renamed)
    assert verdict.is_verified and any("general.name" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("name", "row", "at", "said"),
    [
        # Q4_K's blocks of 144 bytes begin with two scales; values begin at byte 16.
        ("blk.0.attn_q.weight", 5, 100, "(Q4_K), row 5, block 0 (elements 0 to 255): byte 100 is"),
        ("blk.0.attn_q.weight", 0, 0, "(Q4_K), row 0, block 0 (elements 0 to 255): byte 0 is"),
        ("blk.0.attn_norm.weight", 0, 4 * 7 + 2, "(F32), row 0, element 7: byte 2 is"),
    ],
)
def test_a_flipped_bit_is_named(ggq, copy, source, name, row, at, said):
    with open_gguf(copy) as file:
        info = file.tensors[name]
    flip(copy, info.offset + row * info.row_bytes + at, bit=3)
    code, out, err = ggq("verify", copy, "--source", source, "-q")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert f"tensor {name} {said} 0x" in err


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("llama.attention.layer_norm_rms_epsilon", "key llama.attention.layer_norm_rms_epsilon is"),
        ("tokenizer.ggml.tokens", "key tokenizer.ggml.tokens["),
        ("tokenizer.chat_template", "key tokenizer.chat_template is"),
        ("general.name", "key general.name is"),
        ("general.file_type", "key general.file_type"),
        ("ggq.source_types", "key ggq.source_types is"),
    ],
)
def test_a_flipped_bit_in_a_key_is_named(ggq, copy, source, key, said):
    with open_gguf(copy) as file:
        at = file.metadata.entry(key).end - (4 if key == "general.file_type" else 1)
    flip(copy, at)
    code, out, err = ggq("verify", copy, "--source", source, "-q")
    assert code == 1 and said in out + err
    assert ggq("verify", copy, "--source", source, "-q", "--weights-only")[0] in (0, 1)


def test_a_flipped_bit_of_the_padding_is_found(copy, source):
    with open_gguf(copy) as file:
        at = file.shards[0].header.end
        assert at < file.shards[0].header.data_start
    flip(copy, at)
    assert "are no padding" in verify(copy, source).differs[0]


def test_missing_and_extra_tensors(made, source, tmp_path):
    with open_gguf(made) as file, GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.copy_metadata(file.metadata)
        kept = [t for t in file.tensors.values() if t.name != "blk.0.attn_k.weight"]
        for t in kept:
            writer.add_tensor(t.name, t.shape, t.type_id)
        writer.add_tensor("blk.0.more.weight", (1, 8), spec.TYPE_IDS["F32"])
        writer.begin()
        for t in kept:
            writer.write(t.name, file.data(t.name))
        writer.write("blk.0.more.weight", np.zeros((1, 32), np.uint8))
    differs = verify(tmp_path / "m.gguf", source).differs
    assert "tensor blk.0.attn_k.weight of the source is missing" in differs
    assert "tensor blk.0.more.weight is none that the source gives" in differs


def test_another_source(ggq, made, source, tmp_path):
    other = make_hf(tmp_path / "my-model", num_hidden_layers=1, intermediate_size=256, seed=2)
    code, _, err = ggq("verify", made, "--source", other, "-q")
    assert code == 1 and "is not what" in err and "tensor output.weight" in err
    wide = make_hf(tmp_path / "wide", num_hidden_layers=1, intermediate_size=512)
    assert any("has shape" in line for line in verify(made, wide).differs)


def test_added_and_missing_keys(made, source, tmp_path):
    more = rewritten(made, tmp_path / "more.gguf", lambda w: w.add("general.extra", "x"))
    assert verify(more, source).differs == ["key general.extra is none that the source gives"]
    less = rewritten(made, tmp_path / "less.gguf", lambda w: w.remove("llama.vocab_size"))
    assert verify(less, source).differs == ["key llama.vocab_size is missing"]
    assert verify(less, source, Settings(weights_only=True)).is_verified


def test_provenance_tells_every_file(source, made, tmp_path):
    folder = shutil.copytree(source, tmp_path / "my-model")
    options = {"pure": True, "tensor_types": ["ffn_up=Q6_K"], "provenance": True}
    (path,) = convert(folder, tmp_path / "m.gguf", "Q4_K_M", **options)
    with open_gguf(path) as file:
        told = json.loads(file.metadata["ggq.provenance"])
    assert told["source"] == "my-model" and told["type"] == "Q4_K_M"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= told["files"].keys()
    assert told["options"] == {"pure": True, "tensor_types": [["ffn_up", "Q6_K"]]}
    assert verify(path, folder).is_verified
    (folder / "generation_config.json").write_text("{}")
    differs = verify(path, folder).differs
    assert any(
        "generation_config.json of the source is not the file that was read" in d for d in differs
    )
    with open_gguf(made) as file:
        assert "ggq.provenance" not in file.metadata  # only where it is asked for


def test_split_files(source, tmp_path):
    paths = convert(source, tmp_path / "m.gguf", "Q8_0", split_max_size="200K")
    assert len(paths) > 1 and verify(paths[0], source).is_verified
    with open_gguf(paths[0]) as file:
        info = file.tensors["output_norm.weight"]
    flip(paths[info.shard], info.offset)
    assert "tensor output_norm.weight" in verify(paths[0], source).differs[0]


@pytest.mark.slow
def test_passes_run_again(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    folder = make_hf(tmp_path / "hf", **SMALL)
    passes = ["awq:tokens=512,n_ctx=64", "gptq:tokens=1024,n_ctx=64"]
    (path,) = convert(folder, tmp_path / "m.gguf", "Q4_0", prepasses=passes)
    assert verify(path, folder).is_verified
    with open_gguf(path) as file:
        info = file.tensors["blk.0.attn_q.weight"]
        assert {"ggq.recipe", "ggq.provenance", "ggq.recipe.environment"} <= file.metadata.keys()
    flip(path, info.offset + 9)
    assert "tensor blk.0.attn_q.weight" in verify(path, folder).differs[0]
    flip(path, info.offset + 9)
    missing = UsageError("pre-pass gptq: to calibrate, pip install 'ggq[torch]'")
    monkeypatch.setattr(
        "ggq.converters.prepasses.gptq.GPTQ.check_needs",
        lambda self: (_ for _ in ()).throw(missing),
    )
    verdict = verify(path, folder)
    assert (
        not verdict.differs and "the passes cannot run again: pre-pass gptq" in verdict.unknown[0]
    )


def test_importance_that_a_pass_measured_is_measured_again(source, tmp_path):
    passes = ["imatrix:tokens=256,n_ctx=64"]
    (made,) = convert(source, tmp_path / "m.gguf", "IQ2_XS", prepasses=passes)
    path = made.rename(tmp_path / "model.bin")  # whatever it is called
    verdict = verify(path, source)
    assert verdict.is_verified, verdict


def test_options_that_would_not_be_used_are_refused(ggq, made):
    for words, flag in (
        (("--imatrix", made), "--source"),
        (("--weights-only",), "--source"),
        (("--public-key", made), "--signature"),
    ):
        code, out, err = ggq("verify", made, *words)
        assert (code, out) == (1, "") and f"{words[0]}: goes with {flag}" in err


def test_provenance_that_lies_is_an_error(made, source, tmp_path):
    for text in ("{", "[]", '{"options": {"speed": 1}}', '{"options": {"pure": "x"}}'):
        path = rewritten(made, tmp_path / "m.gguf", lambda w, t=text: w.add("ggq.provenance", t))
        with pytest.raises(FormatError, match=r"ggq\.provenance"):
            verify(path, source)
