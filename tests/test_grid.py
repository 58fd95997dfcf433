"""Weights that training left on a grid are found and written without loss."""

import numpy as np
import pytest
from hfmaker import make_hf, save
from quantmaker import E2M1, load, read_all

from ggq import quants
from ggq.converters.checkpoint.grid import OnGrid, on_grid
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.imatrix import Imatrix
from ggq.converters.prepare import prepare
from ggq.gguf import open_gguf
from ggq.quants.mixtures import MixtureOptions

TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
UP = "blk.0.ffn_up.weight"


def q4_0(rng, shape):
    """Return weights as Gemma's training leaves them: d = signed extremum / -8 per 32."""
    codes = rng.integers(-8, 8, (shape[0], shape[1] // 32, 32))
    codes[..., 0] = -8  # the extremum
    d = np.exp2(rng.uniform(-9, -5, codes.shape[:2])).astype(np.float32)
    d = (d.view(np.uint32) & 0xFFFF0000).view(np.float32) * rng.choice([-1, 1], d.shape)
    return (codes * d[..., None]).reshape(shape).astype(np.float32)


def mxfp4(rng, shape):
    codes = rng.integers(0, 16, (shape[0], shape[1] // 32, 32))
    power = np.exp2(rng.integers(-12, -4, codes.shape[:2]))
    return (E2M1[codes] * power[..., None]).reshape(shape).astype(np.float32)


MAKERS = {"Q4_0": q4_0, "MXFP4": mxfp4}


def trained(folder, rng, maker, dtype):
    """Write a model whose projections lie on the grid; return their values as stored."""
    make_hf(folder, **TINY)
    tensors = {n: x for n, (_, x) in read_all(folder).items()}
    tensors |= {n: maker(rng, x.shape) for n, x in tensors.items() if "_proj" in n}
    save(folder, tensors, dtype)
    return {n: x for n, x in tensors.items() if "_proj" in n}


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("grid", ["Q4_0", "MXFP4"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_grid_is_hit_exactly(tmp_path, rng, grid, dtype, weighted):
    trained(tmp_path / "hf", rng, MAKERS[grid], dtype)
    convert(tmp_path / "hf", tmp_path / "want.gguf", dtype)
    imatrix = None
    if weighted:  # importance moves the search's scales, not those that are hit
        squares = {UP: np.geomspace(1, 1e4, 64, dtype="f4")}
        imatrix = Imatrix(values=squares)
    options = Options(mixture=MixtureOptions(pure=True))
    job = prepare(tmp_path / "hf", tmp_path / "got.gguf", grid, imatrix, options)
    with job:
        (told,) = [w for w in job.warnings if "lie on the grid" in w]
        assert told.startswith(f"7 matrices lie on the grid of {grid}")
        assert told.endswith("are written without loss")
        job.run()
    with open_gguf(tmp_path / "got.gguf") as a, open_gguf(tmp_path / "want.gguf") as b:
        names = [n for n in a.tensors if quants.by_id(a.tensors[n].type_id).name == grid]
        assert UP in names and len(names) >= 5
        own = quants.get(dtype)
        for name in (n for n in names if n.startswith("blk")):
            got = quants.get(grid).dequantize(a.data(name))
            got = own.dequantize(own.quantize(got)) if dtype == "BF16" else got
            want = own.dequantize(b.data(name))
            np.testing.assert_array_equal(got, want, err_msg=name)


def test_other_types_are_told_what_would_keep_them(tmp_path, rng):
    trained(tmp_path / "hf", rng, q4_0, "BF16")
    with prepare(tmp_path / "hf", tmp_path / "x.gguf", "Q4_K_M") as job:
        (told,) = [w for w in job.warnings if "lie on the grid" in w]
    assert "type Q4_0 writes them without loss, Q4_K_M does not" in told
    with prepare(tmp_path / "hf", tmp_path / "x.gguf", "BF16") as job:
        assert not [w for w in job.warnings if "grid" in w]


def test_a_matrix_with_one_row_off_the_grid_is_no_exact_one(tmp_path, rng):
    values = trained(tmp_path / "hf", rng, q4_0, "F32")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = {n: x for n, (_, x) in read_all(tmp_path / "hf").items()}
    tensors[name] = values[name].copy()
    tensors[name][1, 5] = tensors[name][1, 0] * np.float32(
        0.97
    )  # a row between those that are looked at first
    save(tmp_path / "hf", tensors)
    with prepare(tmp_path / "hf", tmp_path / "x.gguf", "Q4_0") as job:
        (told,) = [w for w in job.warnings if "lie on the grid" in w]
        assert told.endswith(": 6 are written without loss")
        assert job.tensors[UP].type_name == "F32"


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.standard_normal((16, 64)),
        lambda rng: np.zeros((16, 64)),
        lambda rng: rng.integers(-1, 2, (16, 64)) * 0.5,
        lambda rng: np.full((16, 64), np.nan),
        lambda rng: rng.standard_normal((16, 48)),
        lambda rng: q4_0(rng, (16, 64)) * 1.37,
    ],
    ids=["plain", "zeros", "ternary", "nan", "odd rows", "scaled"],
)
def test_what_lies_on_no_grid_or_on_any_is_left_alone(tmp_path, rng, make):
    stored = load(tmp_path, {"a": ("F32", make(rng).astype(np.float32))})
    assert not isinstance(on_grid(stored)["a"], OnGrid)
