"""Every file type that llama-quantize makes runs: held to float64, and to llama.cpp where it is."""

import ctypes

import kernelcheck
import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq import quants
from ggq.gguf import open_gguf, spec
from ggq.runtime.backends.reference import logits as exact_logits
from ggq.runtime.engine.weights import Weights

pytestmark = pytest.mark.slow

SHAPE = {"n_embd": 256, "n_ff": 512, "n_head": 4, "n_head_kv": 2, "rope_factors": True}
IDS = [1, 270, 300, 41, 350, 280, 333, 299, 265]
# llama_ftype numbers, as `llama-quantize --help` lists them.
FILE_TYPES = {
    **{"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9},
    **{"Q2_K": 10, "Q2_K_S": 21, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14},
    **{"Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ1_S": 24, "IQ1_M": 31},
    **{"IQ2_XXS": 19, "IQ2_XS": 20, "IQ2_S": 28, "IQ2_M": 29, "IQ3_XXS": 23, "IQ3_XS": 22},
    **{"IQ3_S": 26, "IQ3_M": 27, "IQ4_NL": 25, "IQ4_XS": 30, "TQ1_0": 36, "TQ2_0": 37},
    **{"MXFP4_MOE": 38, "Q1_0": 40, "Q2_0": 41},
}
PURE = ("MXFP4_MOE",)  # its mixture has these blocks in experts alone


def error(got, want):
    """Return the root mean square of the difference, of the wanted logits' deviation."""
    return float(np.sqrt(np.mean((got - want) ** 2)) / np.std(want))


def by_ggq(path):
    with ggq.load(path, n_ctx=64, threads=1, cache_type="f32") as model:
        exact = exact_logits(Weights(model.gguf), model.hparams, IDS)
        return model.logits(IDS), exact


def encode(x, type_id):
    """Return blocks of the values, or for types without an encoder blocks of random codes."""
    kind = quants.by_id(type_id)
    try:
        return kind.quantize(x)
    except ggq.errors.UsageError:
        return scaled(kind, *x.shape, np.std(x))


def scaled(kind, rows, width, deviation):
    """Return random blocks whose values are so large: a softmax of huge ones amplifies rounding."""
    blocks = kernelcheck.random_blocks(kind, rows, width, np.random.default_rng(rows))
    blocks = np.ascontiguousarray(blocks).reshape(rows, -1)
    fields = blocks.reshape(rows, -1, kind.block_bytes).view(kind.layout)[..., 0]
    for name in (n for n in kind.layout.names if kind.layout[n] == np.float16):
        fields[name] *= np.float16(deviation / np.std(kind.dequantize(blocks)))
    return blocks


@pytest.mark.parametrize("kind", kernelcheck.types_with_kernels(), ids=lambda kind: kind.name)
def test_a_model_in_each_block_type_equals_float64(tmp_path, kind):
    path = make_tiny_llama(tmp_path / "x.gguf", kind.ggml_id, n_layer=1, encode=encode, **SHAPE)
    got, exact = by_ggq(path)
    limit = 2e-6 if kind.matmul().activations != "q8" else 0.03
    assert error(got, exact) < limit


def test_every_type_of_llama_quantize_has_kernels():
    kinds = {kind.name for kind in kernelcheck.types_with_kernels()}
    named = {name.removesuffix("_MOE") for name in FILE_TYPES}
    bases = {n[:-2] if n.endswith(("K_S", "K_M", "K_L")) else n for n in named}
    assert bases - {"IQ2_M", "IQ3_XS", "IQ3_M"} <= kinds  # mixtures of the others


@pytest.mark.parametrize("form", ["version 2", "split", "tied"])
def test_other_forms_of_a_file_run(tmp_path, form):
    shape = {**SHAPE, "n_layer": 1, "tied": form == "tied"}
    whole = make_tiny_llama(tmp_path / "whole.gguf", **shape)
    want, exact = by_ggq(whole)
    assert error(want, exact) < 2e-6
    if form == "split":
        path = make_tiny_llama(tmp_path / "part.gguf", split_max_bytes=500_000, **shape)
        assert len(list(tmp_path.glob("part-*.gguf"))) > 2
    else:
        path = tmp_path / "x.gguf"
        data = bytearray(whole.read_bytes())
        data[4:8] = (2 if form == "version 2" else 3).to_bytes(4, "little")
        path.write_bytes(data)
    with open_gguf(path) as file:
        assert file.version == (2 if form == "version 2" else 3)
        assert ("output.weight" in file.tensors) == (form != "tied")
    np.testing.assert_array_equal(by_ggq(path)[0], want)


@pytest.fixture(scope="module")
def llama_cpp():
    return pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("base") / "f32.gguf", **SHAPE)


def quantized(api, base, path, name):
    """Let llama.cpp quantize ``base`` with importance, as llama-quantize does."""
    rng = np.random.default_rng(3)
    with open_gguf(base) as file:
        widths = {n: t.shape[-1] for n, t in file.tensors.items() if len(t.shape) > 1}
    data = {n: rng.uniform(0.5, 2, width).astype(np.float32) for n, width in widths.items()}
    entries = (api.llama_model_imatrix_data * (len(data) + 1))()
    for entry, (tensor, values) in zip(entries, data.items(), strict=False):
        entry.name, entry.size = tensor.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = api.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure = FILE_TYPES[name], 1, name in PURE
    params.imatrix = entries
    code = api.llama_model_quantize(str(base).encode(), str(path).encode(), ctypes.byref(params))
    assert code == 0
    return path


def by_llama_cpp(api, path):
    settings = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1, "type_k": 0, "type_v": 0}
    model = api.Llama(str(path), logits_all=True, verbose=False, **settings)
    model.eval(IDS)
    logits = np.array(model.scores[: len(IDS)], np.float64)
    model.close()
    return logits


@pytest.mark.parametrize("name", FILE_TYPES)
def test_files_of_llama_quantize_give_llama_cpps_logits(llama_cpp, base, tmp_path, name):
    path = quantized(llama_cpp, base, tmp_path / "x.gguf", name)
    with open_gguf(path) as file:
        kinds = {spec.type_name(t.type_id) for t in file.tensors.values()}
    assert any(kind[:3] == name[:3] for kind in kinds), kinds  # as asked, not a fallback
    (got, exact), theirs = by_ggq(path), by_llama_cpp(llama_cpp, path)
    assert error(got, exact) < 1.5 * error(theirs, exact) + 2e-6
    assert error(got, theirs) < 2 * error(theirs, exact) + 4e-6
