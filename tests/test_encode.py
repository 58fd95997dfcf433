"""Slabs: whole tensors come out of them in order, stacks by expert, permutations by row."""

import numpy as np
import pytest
from hfmaker import save

from ggq.converters import encode
from ggq.converters.checkpoint.tensors import HFTensor, MadeTensor
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.converters.encode import EncodeTask, encode_all
from ggq.converters.imatrix import Imatrix
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import FormatError
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer
from ggq.models.layers.feed_forward import FeedForward

LAYER = Layer(Attention(4, 2, 16, 16, 0.25), FeedForward(64))
HP = HParams("llama", 8, 8, 32, 1e-5, (LAYER,), 4, 2)


def collect(job, threads=2, imatrix=None):
    """Return the rows that encode_all writes for one job."""
    slabs, counted = [], []
    encode_all(
        [job],
        lambda name, rows: slabs.append(rows),
        imatrix,
        threads,
        lambda name, n: counted.append(n),
    )
    assert sum(counted) == np.prod(job.tensor.shape)
    return np.concatenate(slabs), len(slabs)


@pytest.fixture
def stored(tmp_path, rng):
    """Return (values, stored tensors) of three experts."""
    values = rng.standard_normal((3, 20, 32)).astype(np.float32)
    save(tmp_path, {str(e): x for e, x in enumerate(values)})
    file = SafetensorsFile(tmp_path / "model.safetensors")
    return values, tuple(file.tensors[str(e)] for e in range(3))


def test_experts_are_stacked_slab_by_slab(stored, monkeypatch):
    values, parts = stored
    monkeypatch.setattr(encode, "SLAB_ELEMENTS", 7 * 32)  # 7 rows: no slab crosses an expert
    tensor = HFTensor("x", values.shape, "F32", parts, None, None)
    rows, n_slabs = collect(EncodeTask(tensor, "F32"))
    np.testing.assert_array_equal(rows.view("<f4"), values.reshape(-1, 32))
    assert n_slabs == 9


def test_each_expert_gets_its_own_importance(stored, monkeypatch, rng):
    from ggq import quants

    values, parts = stored
    monkeypatch.setattr(encode, "SLAB_ELEMENTS", 7 * 32)
    matrix = Imatrix({"x": rng.lognormal(0, 2, 96).astype(np.float32)})
    tensor = HFTensor("x", values.shape, "F32", parts, None, None)
    rows, _ = collect(EncodeTask(tensor, "Q4_0"), imatrix=matrix)
    kind = quants.get("Q4_0")
    by_expert = [kind.quantize(x, matrix.values["x"][32 * e :][:32]) for e, x in enumerate(values)]
    np.testing.assert_array_equal(rows, np.concatenate(by_expert))
    assert not np.array_equal(rows, kind.quantize(values.reshape(-1, 32)))


@pytest.mark.parametrize(("name", "n_head"), [("permute_q", 4), ("permute_k", 2)])
def test_permutations_by_slabs_equal_the_whole(tmp_path, rng, monkeypatch, name, n_head):
    values = rng.standard_normal((16 * n_head, 32)).astype(np.float32)
    save(tmp_path, {"w": values, "b": values[:, 0].copy()})
    file = SafetensorsFile(tmp_path / "model.safetensors")
    transform = TRANSFORMS[name]
    rows_of = transform.rows(HP, 0, len(values))
    halves = values.reshape(n_head, 2, 8, 32)
    want = halves.swapaxes(1, 2).reshape(values.shape)  # what convert_hf_to_gguf.py computes
    monkeypatch.setattr(encode, "SLAB_ELEMENTS", 5 * 32)
    tensor = HFTensor("w", values.shape, "F32", (file.tensors["w"],), rows_of, None)
    rows, n_slabs = collect(EncodeTask(tensor, "F32"))
    np.testing.assert_array_equal(rows.view("<f4"), want)
    assert n_slabs > 3
    bias = HFTensor("b", (len(values),), "F32", (file.tensors["b"],), rows_of, None)
    np.testing.assert_array_equal(collect(EncodeTask(bias, "F32"))[0].view("<f4")[0], want[:, 0])
    back = transform.undo_rows(HP, 0, len(values))(np.arange(len(values)))
    np.testing.assert_array_equal(want[back], values)


def test_values_are_transformed_after_widening():
    x = np.full((2, 4), 0.5, np.float32)
    plus = TRANSFORMS["plus_one"]
    np.testing.assert_array_equal(plus.undo_values(plus.values(x)), x)
    assert plus.values(x).dtype == np.float32 and (plus.values(x) == 1.5).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_worker_stops_everything(threads):
    class Broken(MadeTensor):
        def read(self, start, stop):
            if start >= 40:
                raise FormatError("tensor broken: gone")
            return super().read(start, stop)

    written = []
    tensor = Broken("broken", np.zeros((100, 1 << 18), np.float32))
    with pytest.raises(FormatError, match="gone"):
        encode_all(
            [EncodeTask(tensor, "F16")], lambda n, r: written.append(len(r)), threads=threads
        )
    assert sum(written) <= 40
