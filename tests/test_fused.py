"""Fused and MXFP4 experts of gpt-oss become the rows that GGUF holds, whatever slab is read."""

import numpy as np
import pytest

from ggq import quants
from ggq.converters.checkpoint import fused
from ggq.converters.safetensors import SafetensorsFile, write_header
from ggq.errors import ModelError

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
N_EXPERT, N_OUT, N_IN = 3, 10, 64


@pytest.fixture
def stored(tmp_path):
    """Return a function that writes arrays to a safetensors file and returns its tensors."""

    def write(**arrays):
        dtypes = {"float32": "F32", "uint8": "U8"}
        header = write_header({n: (dtypes[a.dtype.name], a.shape) for n, a in arrays.items()})
        path = tmp_path / "model.safetensors"
        path.write_bytes(header + b"".join(a.tobytes() for a in arrays.values()))
        return SafetensorsFile(path).tensors

    return write


def slabs(tensor, n):
    return np.concatenate(
        [
            tensor.read(e * N_OUT + r, e * N_OUT + min(r + n, N_OUT))
            for e in range(N_EXPERT)
            for r in range(0, N_OUT, n)
        ]
    )


@pytest.mark.parametrize("first", [0, 1])
def test_float_experts_are_transposed_columns(first, stored, rng):
    x = rng.standard_normal((N_EXPERT, N_IN, 2 * N_OUT)).astype(np.float32)
    tensor = fused.experts("t", (N_EXPERT, N_OUT, N_IN), [stored(x=x)["x"]], first, 2)
    want = x[:, :, first::2].swapaxes(1, 2).reshape(-1, N_IN)
    np.testing.assert_array_equal(slabs(tensor, 4), want)
    assert tensor.type_name == "F32" and tensor.raw(0, 4) is None


@pytest.mark.parametrize("first", [0, 1])
def test_bias_columns(first, stored, rng):
    x = rng.standard_normal((N_EXPERT, 2 * N_OUT)).astype(np.float32)
    tensor = fused.experts("t", (N_EXPERT, N_OUT), [stored(x=x)["x"]], first, 2)
    np.testing.assert_array_equal(tensor.read(1, 3), x[1:3, first::2])


@pytest.mark.parametrize(("first", "step"), [(0, 1), (0, 2), (1, 2)])
def test_mxfp4_blocks_keep_every_value(first, step, stored, rng):
    blocks = rng.integers(0, 256, (N_EXPERT, step * N_OUT, N_IN // 32, 16)).astype(np.uint8)
    scales = rng.integers(100, 140, blocks.shape[:3]).astype(np.uint8)
    found = stored(b=blocks, s=scales)
    tensor = fused.experts("t", (N_EXPERT, N_OUT, N_IN), [found["b"], found["s"]], first, step)
    values = E2M1[np.stack((blocks & 15, blocks >> 4), -1)].reshape(*blocks.shape[:3], 32)
    values = values * np.exp2(scales.astype(np.float32) - 127)[..., None]
    want = values.reshape(N_EXPERT, -1, N_IN)[:, first::step].reshape(-1, N_IN)
    np.testing.assert_array_equal(slabs(tensor, 4), want)
    raw = tensor.raw(0, N_EXPERT * N_OUT)
    np.testing.assert_array_equal(quants.get("MXFP4").dequantize(raw), want)
    assert tensor.type_name == "MXFP4"


@pytest.mark.parametrize(("part", "n_parts"), [(0, 1), (0, 2), (1, 2)])
def test_stacks_hold_several_matrices_per_expert(part, n_parts, stored, rng):
    x = rng.standard_normal((N_EXPERT, n_parts * N_OUT, N_IN)).astype(np.float32)
    tensor = fused.stack("t", (N_EXPERT, N_OUT, N_IN), [stored(x=x)["x"]], part, n_parts)
    want = x[:, part * N_OUT : (part + 1) * N_OUT].reshape(-1, N_IN)
    np.testing.assert_array_equal(slabs(tensor, 4), want)
    turned = np.ascontiguousarray(x.swapaxes(1, 2))
    tensor = fused.stack("t", (N_EXPERT, N_OUT, N_IN), [stored(x=turned)["x"]], part, n_parts)
    np.testing.assert_array_equal(slabs(tensor, 4), want)
    with pytest.raises(ModelError, match="t needs 3 x"):
        fused.stack("t", (N_EXPERT, N_OUT, N_IN), tensor.parts, part, 3)


def test_other_shapes_are_named(stored):
    found = stored(x=np.zeros((N_EXPERT, N_IN, N_OUT + 1), np.float32))
    with pytest.raises(ModelError, match=r"t needs 1 x \(3, 10, 64\).* x F32 \(3, 64, 11\)"):
        fused.experts("t", (N_EXPERT, N_OUT, N_IN), [found["x"]], 0, 1)
