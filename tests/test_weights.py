"""Which files hold a folder's weights: torch's pickles, shards without an index, prefixes."""

import json
import pickle
import sys

import numpy as np
import pytest
from hfmaker import make_hf, save
from quantmaker import read_all

from ggq.cli import main
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.prefixes import unwrapped
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.errors import FormatError, GGQError, ModelError
from ggq.gguf import open_gguf

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    return make_hf(tmp_path / "hf", **TINY)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def values(folder):
    return {n: x for n, (_, x) in read_all(folder).items()}


def data(tmp_path, source, name):
    (path,) = convert(source, tmp_path / f"{name}.gguf", "F32")
    with open_gguf(path) as file:
        return {n: bytes(file.data(n)) for n in file.tensors}


def pickled(torch, folder, dtype=None, **options):
    """Move the folder's weights into pytorch_model.bin; return what is in the file."""
    tensors = {n: torch.from_numpy(x.copy()) for n, x in values(folder).items()}
    tensors = {n: x if dtype is None else x.to(dtype) for n, x in tensors.items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", **options)
    return tensors


def problem(source, *words):
    with pytest.raises(GGQError) as error:
        prepare(source, "x.gguf", "F16")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-1.6"])
def test_pickled_weights_are_the_same(torch, folder, tmp_path, zipped):
    want = data(tmp_path, folder, "want")
    pickled(torch, folder, _use_new_zipfile_serialization=zipped)
    assert data(tmp_path, folder, "got") == want


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_float_of_torch_is_read(torch, folder, dtype):
    held = pickled(torch, folder, getattr(torch, dtype))
    found = Checkpoint(folder).tensors
    for name, tensor in held.items():
        got = found[name].read(slice(None)).reshape(found[name].shape)
        np.testing.assert_array_equal(got, tensor.float().numpy())


def test_views_in_another_order_and_trainers_files(torch, folder, tmp_path):
    want = data(tmp_path, folder, "want")
    held = pickled(torch, folder)
    turned = {n: x.t().contiguous().t() if x.ndim == 2 else x for n, x in held.items()}
    (folder / "pytorch_model.bin").unlink()
    inside = {"state_dict": turned | {"x._extra_state": None}, "epoch": 3}
    torch.save(inside, folder / "last.pth")
    torch.save({"lr": torch.ones(1)}, folder / "optimizer.pt")
    with prepare(folder, tmp_path / "x.gguf", "F16") as job:
        assert any("those under 'state_dict'" in w for w in job.warnings)
    assert data(tmp_path, folder, "got") == want


def test_shards_of_pickles(torch, folder, tmp_path):
    want = data(tmp_path, folder, "want")
    held = pickled(torch, folder)
    (folder / "pytorch_model.bin").unlink()
    weight_map = {}
    for i in range(2):
        name = f"pytorch_model-0000{i + 1}-of-00002.bin"
        part = dict(list(held.items())[i::2])
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    assert data(tmp_path, folder, "counted") == want
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert data(tmp_path, folder, "listed") == want
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    problem(folder, "its shard pytorch_model-00002-of-00002.bin is missing")


class Code:
    def __reduce__(self):
        return print, ("run by a pickle",)


@pytest.mark.parametrize("form", ["raw", "zip"])
def test_code_in_a_pickle_is_never_run(torch, folder, capsys, form):
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    if form == "raw":
        path.write_bytes(pickle.dumps({"a": Code()}))
    else:
        torch.save({"a": torch.ones(2), "b": Code()}, path)
    problem(folder, "pytorch_model.bin", "holds code", "never run")
    assert main(["check", str(folder)]) == 1
    seen = capsys.readouterr()
    assert "run by a pickle" not in seen.out + seen.err and "holds code" in seen.err


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda t: [t.ones(2)], "holds no named tensors"),
        (lambda t: {"lr": 0.1}, "holds no named tensors, only lr"),
        (lambda t: {"a": t.ones(2), "b": 7}, "b is a int, no tensor"),
        (lambda t: {"a": t.ones(2, 2).to_sparse()}, "tensor a is torch.sparse_coo"),
        (lambda t: {"a": t.ones(2, device="meta")}, "tensor a is torch.strided on meta"),
        (lambda t: {"a": t.ones(2, dtype=t.complex64)}, "tensor a is complex64"),
        (lambda t: {"a": t.ones(0)}, "tensor a is empty"),
        (lambda t: {"a": t.ones(1).expand(1 << 40)}, "tensor a repeats few values in memory"),
        (lambda t: {}, "holds no named tensors, only nothing"),
    ],
)
def test_what_is_no_checkpoint_is_refused(torch, folder, made, words):
    (folder / "model.safetensors").unlink()
    torch.save(made(torch), folder / "pytorch_model.bin")
    problem(folder, "pytorch_model.bin", words)


@pytest.mark.parametrize(
    "text", [b"", b"PK\x03\x04 cut off", b"version https://git-lfs.github.com"]
)
def test_files_that_are_no_pickles(torch, folder, text):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(text)
    problem(folder, "pytorch_model.bin")


def test_without_torch_the_extra_is_named(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    problem(folder, "read with torch, which is not installed", "[torch]")


def split(folder, parts, pattern="model-{:05}-of-{:05}.safetensors"):
    tensors = values(folder)
    (folder / "model.safetensors").unlink()
    for i in range(parts):
        save(folder, dict(list(tensors.items())[i::parts]))
        (folder / "model.safetensors").rename(folder / pattern.format(i + 1, parts))


def test_shards_that_count_themselves_need_no_index(folder, tmp_path):
    want = data(tmp_path, folder, "want")
    split(folder, 3)
    assert data(tmp_path, folder, "got") == want
    assert Checkpoint(folder).warnings == ["no index: all 3 shards are used"]
    (folder / "model-00002-of-00003.safetensors").unlink()
    problem(folder, "no index, and shard 2 of 3 is missing")


def test_shards_that_do_not_count_or_repeat_a_tensor(folder):
    split(folder, 2, "part-{}.safetensors")
    problem(folder, "2 shards and no index")
    for i in (1, 2):
        name = f"model-0000{i}-of-00002.safetensors"
        (folder / f"part-{i}.safetensors").rename(folder / name)
    held = (folder / "model-00001-of-00002.safetensors").read_bytes()
    (folder / "model-00002-of-00002.safetensors").write_bytes(held)
    problem(folder, "and in another shard, and no index says which is meant")


def overlay(folder, names, name="model-more.safetensors"):
    """Put some tensors into a file that the index does not name."""
    tensors = values(folder)
    (folder / "model.safetensors").unlink()
    save(folder, {n: x for n, x in tensors.items() if n in names})
    (folder / "model.safetensors").rename(folder / name)
    shard = "model-00001-of-00001.safetensors"
    rest = {n: x for n, x in tensors.items() if n not in names}
    save(folder, rest)
    (folder / "model.safetensors").rename(folder / shard)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(rest, shard)}))


def test_tensors_of_files_beside_an_index_are_used_and_told(folder, tmp_path):
    want = data(tmp_path, folder, "want")
    overlay(folder, ["lm_head.weight"])
    with prepare(folder, tmp_path / "x.gguf", "F16") as job:
        assert "1 tensors, such as lm_head.weight, are of files that no index lists" in job.warnings
    assert data(tmp_path, folder, "got") == want
    save(folder, {"model.norm.weight": np.zeros(32, np.float32), "vision.x": np.ones((2, 2), "f4")})
    assert data(tmp_path, folder, "again") == want
    told = [w for w in Checkpoint(folder).warnings if "the index is followed" in w]
    assert len(told) == 1 and "model.norm.weight" in told[0]


WRAPPED = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel",
    "base_model.model.": "PEFT",
    "_fsdp_wrapped_module.": "FSDP",
    "transformer.": "a wrapper",
    "module._orig_mod.": "torch.compile",
    "model.": "a wrapper",
}


@pytest.mark.parametrize("prefix", WRAPPED)
def test_prefixes_are_taken_off_and_told(folder, tmp_path, prefix):
    want = data(tmp_path, folder, "want")
    save(folder, {prefix + name: x for name, x in values(folder).items()})
    (told,) = [w for w in Checkpoint(folder).warnings if "taken off" in w]
    assert WRAPPED[prefix] in told
    assert data(tmp_path, folder, "got") == want


def test_wrappers_inside_names(folder, tmp_path):
    want = data(tmp_path, folder, "want")
    inner = {n.replace("layers.0.", "layers.0._orig_mod."): x for n, x in values(folder).items()}
    save(folder, inner)
    assert data(tmp_path, folder, "got") == want


def test_a_name_with_and_without_its_prefix(folder):
    tensors = values(folder)
    save(folder, tensors | {"_orig_mod.lm_head.weight": tensors["lm_head.weight"]})
    problem(folder, "lm_head.weight with a wrapper's prefix and without")


@pytest.mark.parametrize(
    "names",
    [
        ["transformer.h.0.attn.weight", "transformer.wte.weight"],
        ["model.layers.0.x", "model.embed_tokens.weight"],
        ["model.language_model.layers.0.x", "model.vision_tower.x"],
        ["module.a", "lm_head.weight"],
        ["transformer.layers.0.attention.x", "transformer.embedding.x"],
    ],
)
def test_names_that_models_have_themselves_stay(names):
    assert unwrapped(dict.fromkeys(names)) == (dict.fromkeys(names), [])


def test_an_unknown_prefix_is_refused(folder):
    save(folder, {f"student.{n}": x for n, x in values(folder).items()})
    with pytest.raises(ModelError, match=r"names begin with .student\.."):
        prepare(folder, "x.gguf", "F16")


def test_errors_are_format_errors_where_the_file_is_wrong(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match="no safetensors file"):
        Checkpoint(folder)
