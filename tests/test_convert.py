"""Conversion against llama.cpp: pinned bytes of every file type, keys, refusals, commands."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filediff import differences
from golden_models import FILE_TYPES, NEED_IMATRIX, build, make_imatrix
from hfmaker import LLAMA, make_hf, shapes_of

import ggq.gguf
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.imatrix import Imatrix
from ggq.converters.prepare import prepare
from ggq.errors import FormatError, UsageError
from ggq.gguf import spec
from ggq.quants.mixtures import MixtureOptions

_open_files = contextlib.ExitStack()


def open_gguf(path):
    """Open a file that the fixture below closes when the test is over."""
    return _open_files.enter_context(ggq.gguf.open_gguf(path))


@pytest.fixture(autouse=True)
def close_files():
    yield
    _open_files.close()


GOLDEN = json.loads((Path(__file__).parent / "data" / "convert.json").read_text())
OURS = ("ggq.", "tokenizer.")


def small(**more):
    return {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, **more}


@pytest.fixture(scope="module", params=list(GOLDEN))
def golden(request, tmp_path_factory):
    """Return (golden data, HF folder, imatrix) of one pinned model."""
    work = tmp_path_factory.mktemp(request.param)
    folder = build(request.param, work)
    (base,) = convert(folder, work / "f32.gguf", "F32")
    return GOLDEN[request.param], folder, make_imatrix(base, work / "imatrix.gguf")


@pytest.mark.parametrize("importance", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_every_tensor_has_llama_cpps_bytes(golden, tmp_path, file_type, importance):
    want, folder, imatrix = golden
    if file_type in NEED_IMATRIX and not importance:
        with prepare(folder, tmp_path / "x.gguf", file_type) as job:
            needed = job.plan.need_imatrix
        assert needed or want is GOLDEN["odd"]  # where all rows fall back
        if needed:
            with pytest.raises(UsageError, match=f"{file_type} needs an importance matrix"):
                convert(folder, tmp_path / "x.gguf", file_type)
            assert not (tmp_path / "x.gguf").exists()
        return
    (path,) = convert(
        folder, tmp_path / "x.gguf", file_type, imatrix=imatrix if importance else None
    )
    suffix = "+imatrix" if importance else ""
    column = want["labels"].index(file_type + suffix)
    file = open_gguf(path)
    assert list(file.tensors) == want["order"] or file_type == "F32"
    for name, tensor in file.tensors.items():
        kind = want["types"][name].split()[column]
        assert (name, spec.type_name(tensor.type_id)) == (name, kind)
        digest = hashlib.sha256(file.data(name).tobytes()).hexdigest()[:16]
        assert (name, digest) == (name, want["sha256"][name][kind + suffix])


def test_keys_are_those_of_the_converter(golden):
    want, folder, _ = golden
    with prepare(folder, folder.parent / "keys.gguf", "F32") as job:
        found = {i.key: [i.type, i.value] for i in job.items if not i.key.startswith(OURS)}
    assert {k: t for k, (t, _) in found.items()} == {k: t for k, (t, _) in want["keys"].items()}
    for key, (kind, value) in want["keys"].items():
        right = np.float32(found[key][1]) if kind == spec.F32 else found[key][1]
        assert (key, right) == (key, value)


def test_via_f16_equals_the_two_step_route(tmp_path):
    folder = make_hf(tmp_path / "hf", dtype="BF16", **small(hidden_size=256, num_attention_heads=4))
    (half,) = convert(folder, tmp_path / "half.gguf", "F16")
    (two,) = convert(half, tmp_path / "two.gguf", "Q4_K_M")
    (one,) = convert(folder, tmp_path / "one.gguf", "Q4_K_M", options=Options(via="f16"))
    assert differences(open_gguf(one), open_gguf(two)) == []
    with pytest.raises(UsageError, match=r"^via bf16"):
        convert(folder, tmp_path / "x.gguf", options=Options(via="bf16"))


@pytest.mark.parametrize(
    ("value", "file_type", "options", "message"),
    [
        (7e4, "Q8_0", Options(via="f16"), r"blk\.1\.ffn_up\.weight: 70000 is beyond F16's 65504"),
        (7e4, "F16", Options(), r"blk\.1\.ffn_up\.weight: 70000 is beyond F16"),
        (np.nan, "Q8_0", Options(), r"blk\.1\.ffn_up\.weight holds NaN or Inf"),
        (-np.inf, "Q4_0", Options(), r"blk\.1\.ffn_up\.weight holds NaN or Inf"),
        (
            1e30,
            "Q8_0",
            Options(),
            r"blk\.1\.ffn_up\.weight: 1e\+30 is too large for the scales of Q8_0",
        ),
    ],
)
def test_bad_weights_are_refused_by_name_and_leave_nothing(
    tmp_path, value, file_type, options, message
):
    config = {**LLAMA, **small(vocab_size=384)}
    shape = dict(shapes_of(config))["model.layers.1.mlp.up_proj.weight"]
    weights = np.full(shape, 0.5, np.float32)
    weights[3, 5] = value
    extra = {"model.layers.1.mlp.up_proj.weight": weights}
    folder = make_hf(tmp_path / "hf", extra=extra, **small())
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises((FormatError, UsageError), match=message):
        convert(folder, out / "x.gguf", file_type, options=options)
    assert list(out.iterdir()) == []


def test_a_large_weight_that_blocks_can_hold_is_kept(tmp_path):
    config = {**LLAMA, **small(vocab_size=384)}
    weights = np.zeros(dict(shapes_of(config))["model.layers.1.mlp.up_proj.weight"], np.float32)
    weights[3, 5] = 7e4
    folder = make_hf(
        tmp_path / "hf", extra={"model.layers.1.mlp.up_proj.weight": weights}, **small()
    )
    (path,) = convert(folder, tmp_path / "x.gguf", "Q8_0")
    assert "blk.1.ffn_up.weight" in open_gguf(path).tensors


def test_quantized_sources_need_permission(tmp_path):
    folder = make_hf(tmp_path / "hf", **small())
    (q8,) = convert(folder, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(UsageError, match=r"is already Q8_0.* allow_requantize=True"):
        convert(q8, tmp_path / "q4.gguf", "Q4_0")
    (q4,) = convert(q8, tmp_path / "q4.gguf", "Q4_0", options=Options(allow_requantize=True))
    file = open_gguf(q4)
    assert file.metadata["general.file_type"] == 2
    assert spec.type_name(file.tensors["blk.0.ffn_up.weight"].type_id) == "Q4_0"
    (same,) = convert(q8, tmp_path / "same.gguf", "Q8_0")
    assert differences(open_gguf(same), open_gguf(q8)) == []


def test_a_prepass_may_replace_tensors(tmp_path):
    folder = make_hf(tmp_path / "hf", **small())

    class Zero:
        def __init__(self, tensor):
            self.name, self.shape, self.type_name = tensor.name, tensor.shape, tensor.type_name

        def read(self, start, stop):
            return np.zeros((stop - start, self.shape[-1]), np.float32)

        def raw(self, start, stop):
            return None

    def prepass(job):
        name = "blk.0.ffn_up.weight"
        job.tensors[name] = Zero(job.tensors[name])

    (path,) = convert(folder, tmp_path / "x.gguf", "F32", prepasses=[prepass])
    assert not open_gguf(path).data("blk.0.ffn_up.weight").any()


def test_split_files_hold_the_same_tensors(tmp_path):
    folder = make_hf(tmp_path / "hf", **small())
    (whole,) = convert(folder, tmp_path / "whole.gguf", "F32")
    paths = convert(folder, tmp_path / "part.gguf", "F32", options=Options(split_max_bytes=60_000))
    assert len(paths) > 1 and all("-of-000" in p.name for p in paths)
    got, want = open_gguf(paths[0]), open_gguf(whole)
    assert [k for k in differences(got, want) if not k.startswith("split.")] == []


def test_overrides_reach_the_file(tmp_path):
    folder = make_hf(tmp_path / "hf", **small())
    options = Options(mixture=MixtureOptions(pure=True, token_embedding_type="F16"))
    (path,) = convert(folder, tmp_path / "x.gguf", "Q4_0", options=options)
    file = open_gguf(path)
    kinds = {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}
    assert kinds["token_embd.weight"] == "F16" and kinds["output.weight"] == "Q4_0"
    assert file.metadata["ggq.types"].startswith("Q4_0:")
    assert file.metadata["ggq.source"] == "hf"


def test_a_type_that_is_only_read_is_refused_before_any_work(tmp_path):
    folder = make_hf(tmp_path / "hf", **small(hidden_size=256, num_attention_heads=4))
    options = Options(mixture=MixtureOptions(tensor_types=(("ffn_up", "NVFP4"),)))
    with pytest.raises(UsageError, match="NVFP4: ggq reads this type but does not write it"):
        convert(folder, tmp_path / "x.gguf", options=options)
    assert not list(tmp_path.glob("*.gguf"))


def test_an_embedding_whose_type_needs_importance_is_refused_by_name(tmp_path):
    """llama-quantize asks no importance for it and aborts in the encoder."""
    folder = make_hf(tmp_path / "hf", **small(hidden_size=256, num_attention_heads=4))
    options = Options(mixture=MixtureOptions(token_embedding_type="IQ2_XXS"))
    with pytest.raises(
        UsageError, match=r"token_embd\.weight cannot be written in IQ2_XXS without"
    ):
        convert(folder, tmp_path / "x.gguf", options=options)
    assert not list(tmp_path.glob("*.gguf"))
    matrix = Imatrix({"token_embd.weight": np.ones(256, np.float32)})
    (path,) = convert(folder, tmp_path / "x.gguf", imatrix=matrix, options=options)
    with open_gguf(path) as file:
        assert spec.type_name(file.tensors["token_embd.weight"].type_id) == "IQ2_XXS"


def test_importance_may_come_from_a_pre_pass(tmp_path):
    folder = make_hf(tmp_path / "hf", **small(hidden_size=256, num_attention_heads=4))
    out, name = tmp_path / "x.gguf", "blk.0.attn_q.weight"

    def measure(job):
        needed = set(job.lacking_importance)
        assert name in needed
        job.imatrix = Imatrix({n: np.ones(256, np.float32) for n in needed - left_out})

    left_out = {name}
    with pytest.raises(UsageError, match=rf"IQ2_XS needs an importance matrix .* for {name}"):
        convert(folder, out, "IQ2_XS", prepasses=[measure])
    assert not out.exists()
    left_out = set()
    (path,) = convert(folder, out, "IQ2_XS", prepasses=[measure])
    with open_gguf(path) as file:
        assert spec.type_name(file.tensors[name].type_id) == "IQ2_XS"


KILLED = """
import os, sys, threading, time
from ggq.converters.convert import convert
delay = float(sys.argv[3])
threading.Timer(delay, os._exit, (9,)).start()
convert(sys.argv[1], sys.argv[2], "Q8_0", progress=lambda *_: time.sleep(0.002))
os._exit(0)
"""


@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_or_the_whole_file(tmp_path):
    folder = make_hf(tmp_path / "hf", **small(num_hidden_layers=12))
    (whole,) = convert(folder, tmp_path / "whole.gguf", "Q8_0")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    outcomes = set()
    for i, delay in enumerate((0.0, 0.4, 0.55, 0.7, 0.85, 60)):
        out = tmp_path / f"out{i}.gguf"
        command = [sys.executable, "-c", KILLED, str(folder), str(out), str(delay)]
        code = subprocess.run(command, env=env, capture_output=True, check=False).returncode
        outcomes.add(code)
        if out.exists():
            assert out.read_bytes() == whole.read_bytes()
        else:
            assert code == 9
    assert outcomes == {0, 9}


def test_sources_that_do_not_exist(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder, nor a repository id"):
        convert(tmp_path / "nothing" / "here", tmp_path / "x.gguf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="empty: is empty"):
        convert(tmp_path / "empty", tmp_path / "x.gguf")
