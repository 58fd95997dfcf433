"""Generation on torch devices, tried on torch's CPU device with what MPS supports and no more."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import test_architectures
from floats import distance, float_weights
from ggufmaker import make_tiny_llama
from test_architectures import TINY
from tools.mps_ops import functions, keys

import ggq
from ggq import quants
from ggq.gguf import open_gguf
from ggq.runtime.backends import reference
from ggq.runtime.engine.backend import Part
from ggq.runtime.engine.devices import Device
from ggq.runtime.engine.weights import Weights
from ggq.runtime.model import Model

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from ggq.runtime.backends.torch.arrays import TorchArray, upload  # noqa: E402
from ggq.runtime.engine.torch import ops as torch_ops  # noqa: E402
from ggq.runtime.engine.torch import weights as torch_weights  # noqa: E402
from ggq.runtime.engine.torch.weights import DeviceWeights  # noqa: E402

HALF = 5e-3  # the logits' share that float16 rounding may move
ROUNDED = 8e-2  # and what numba's activations of 8 bits may, too
BLOCKS = [t for t in quants.all() if hasattr(t, "layout")]
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "MXFP4"]
ON_NUMBA = ["F32", "F16", "Q4_0", "Q4_K"]  # enough to compile for
LIST = Path(__file__).parent / "data" / "mps_ops.json"
# Without a kernel under the key MPS: they make views, or are written with operators that have one.
COMPOSITE = json.loads((LIST.parent / "mps_composite.json").read_text())
WIDE = {torch.float64, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64}


class LikeMPS(TorchDispatchMode):
    """Fails on what MPS has not: operators outside the list, wide or complex types."""

    def __init__(self):
        super().__init__()
        self.allowed = {*json.loads(LIST.read_text())["ops"], *COMPOSITE}
        self.used = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # operators that are only a Python of C++ are seen as what they call
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        name = str(func).removeprefix("aten.").removesuffix(".default")
        assert name in self.allowed, f"MPS has no {name}"
        self.used.add(name)
        result = func(*args, **kwargs)
        for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            kind = getattr(value, "dtype", value)
            assert not (isinstance(kind, torch.dtype) and kind in WIDE), f"{name}: {kind}"
        return result


@pytest.fixture
def like_mps():
    with LikeMPS() as mode:
        yield mode


@pytest.fixture
def opened(tmp_path):
    """Open tiny models on torch's CPU device: (model there, model on numba); all close."""
    with ExitStack() as stack:

        def make(kind="F32", weights="packed", cache_type="f16", **settings):
            kind = quants.get(kind)
            wide = {"n_embd": 256, "n_ff": 256} if kind.block_size == 256 else {}
            path = tmp_path / f"{kind.name}.gguf"
            if not path.exists():
                make_tiny_llama(path, kind.ggml_id, **wide, **settings)
            cpu = stack.enter_context(ggq.load(path, threads=1, cache_type=cache_type))
            place = Device("cpu:0", weights)  # that ggq has another CPU engine is told by the name
            there = Model(open_gguf(path), device=place, cache_type=cache_type)
            return stack.enter_context(there), cpu

        yield make


@pytest.fixture
def ids(rng):
    return rng.integers(3, 90, 40)


def greedy(model, ids, n=12):
    session = model.session()
    logits = session.evaluate(ids)
    for _ in range(n):
        logits = session.evaluate([int(logits.argmax())])
    return session.ids[len(ids) :]


# --- block decoders ---


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda t: t.name)
def test_decoders_give_the_bits_of_numpys(kind, rng, like_mps):
    raw = rng.integers(0, 256, (3, 4 * kind.block_bytes), np.uint8)
    blocks = upload(raw.view(kind.layout), torch.device("cpu"))
    assert blocks.nbytes == raw.nbytes
    want, got = kind.dequantize(raw), kind.dequantize(blocks).tensor.numpy()
    assert got.dtype == np.float32
    same = got.view(np.int32) == want.view(np.int32)
    assert (same | (np.isnan(got) & np.isnan(want))).all()
    assert like_mps.used


def test_calls_that_no_decoder_makes_are_refused():
    array = TorchArray(torch.ones(3))
    with pytest.raises(TypeError):
        np.linalg.norm(array)
    with pytest.raises(TypeError):
        np.arctan2(array, array)


# --- whole models ---

made = test_architectures.made


@pytest.mark.parametrize("weights", ["packed", "f16"])
@pytest.mark.parametrize("kind", TYPES)
def test_logits_and_text_agree(kind, weights, opened, ids):
    there, cpu = opened(kind, weights)
    want = reference.logits(Weights(cpu.gguf), cpu.hparams, ids)
    with LikeMPS():
        got = there.logits(ids)
        session = there.session()
        parts = [session.evaluate(part) for part in np.split(ids, [17, 18])]
    assert got.dtype == np.float32
    assert distance(got, want) <= HALF
    assert distance(parts, want[[16, 17, -1]]) <= HALF
    if kind not in ON_NUMBA:
        return
    floats = quants.get(kind).block_size == 1
    assert distance(got, cpu.logits(ids)) <= (HALF if floats else ROUNDED)
    assert greedy(there, ids) == greedy(cpu, ids)


def test_float32_where_nothing_is_rounded(opened, ids):
    there, cpu = opened("F32", cache_type="f32")
    want = reference.logits(Weights(cpu.gguf), cpu.hparams, ids)
    assert distance(there.logits(ids), want) <= 1e-5


def test_sequences_in_one_step_equal_each_alone(opened, ids):
    there, _ = opened("Q4_0")
    engine = there.engine
    want = [there.logits(ids[:20]), there.logits(ids[20:30])]
    a, b = engine.sequence(), engine.sequence()
    engine.step([Part(a, ids[:5], np.zeros(5, bool))])
    rows = engine.step(
        [
            Part(a, ids[5:20], np.arange(15) == 14),
            Part(b, ids[20:30], np.ones(10, bool)),
        ]
    )
    assert rows.shape == (11, there.hparams.n_vocab)
    assert distance(rows[0], want[0][-1]) <= HALF
    assert distance(rows[1:], want[1]) <= HALF


def test_truncated_and_forked_sequences_go_on_like_new_ones(opened, ids):
    there, _ = opened()
    want = there.logits(ids[::-1].copy())
    session = there.session()
    session.evaluate(ids[::-1][:30].copy())
    session.evaluate(ids[:5])
    session.truncate(30)
    assert distance(session.evaluate(ids[::-1][30:].copy()), want[-1]) <= HALF
    one = there.engine.sequence()
    there.engine.evaluate(one, ids[::-1][:20].copy())
    two = one.fork(10)
    there.engine.evaluate(two, ids[:7])  # into a page that both use: a copy
    rest = there.engine.evaluate(one, ids[::-1][20:].copy())
    assert distance(rest, want[-1]) <= HALF


def test_scattered_pages_are_read_in_order(opened, rng):
    there, _ = opened()
    ids = rng.integers(3, 90, 120)
    want = there.logits(ids)
    others = [there.engine.sequence() for _ in range(2)]
    mine = there.engine.sequence()
    there.engine.evaluate(others[0], ids[:5])
    there.engine.evaluate(mine, ids[:60])
    there.engine.evaluate(others[1], ids[:5])
    got = there.engine.evaluate(mine, ids[60:])
    assert distance(got, want[-1]) <= HALF


def test_large_matrices_are_decoded_in_pieces(opened, ids, monkeypatch):
    there, _ = opened("Q8_0")
    want = there.logits(ids)
    monkeypatch.setattr(torch_weights, "_CHUNK", 1000)
    monkeypatch.setattr(torch_ops, "_SCORES", 100)
    assert distance(there.logits(ids), want) <= 1e-5


def test_embeddings_agree(opened):
    there, cpu = opened()
    with LikeMPS():
        got = there.embed(["the tin", "an other"])
    assert distance(got, cpu.embed(["the tin", "an other"])) <= HALF


@pytest.mark.parametrize("tiny", TINY, ids=lambda t: t.label)
def test_every_architecture_runs(tiny, made):
    _, path, ids, want = made(tiny)
    place = Device("cpu:0", "packed")
    with Model(open_gguf(path), device=place, n_ctx=tiny.n_ctx, cache_type="f32") as there:
        session = there.session()
        with LikeMPS():
            first = there.engine.evaluate(session._sequence, ids[:-3], every=True)
            rest = [session.evaluate(ids[i : i + 1]) for i in range(len(ids) - 3, len(ids))]
    assert distance(np.concatenate([first, rest]), want) <= HALF


# --- memory ---


def test_packed_weights_take_the_files_bytes_and_halves_two_a_weight(opened, ids):
    for weights in ("packed", "f16"):
        there, _ = opened("Q4_0", weights)
        there.logits(ids)
        tensors = there.gguf.tensors.values()
        vectors = sum(t.nbytes for t in tensors if len(t.shape) == 1)
        matrices = [t for t in tensors if len(t.shape) == 2]
        sizes = {
            "packed": (t.nbytes for t in matrices),
            "f16": (2 * t.n_elements for t in matrices),
        }
        assert there.engine.backend.weights.nbytes == vectors + sum(sizes[weights])


@pytest.mark.parametrize(("free", "kind"), [(10**9, "f16"), (1000, "packed")])
def test_auto_keeps_halves_where_memory_allows(free, kind, opened, monkeypatch):
    monkeypatch.setattr(torch_weights, "free_bytes", lambda device: free)
    there, _ = opened("Q4_0", "auto")
    assert there.engine.backend.weights.kind == kind


def test_pages_are_released_after_the_copy(opened, ids):
    if not Path("/proc/self/smaps").exists():
        pytest.skip("the system does not tell which pages are in memory")
    there, cpu = opened("F16", n_embd=512, n_ff=1024)
    cpu.gguf.close()
    there.logits(ids)

    def resident():
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        for line in lines:
            if line.endswith(str(there.gguf.path)):
                return next(int(li.split()[1]) << 10 for li in lines if li.startswith("Rss:"))
        raise AssertionError("the file is not mapped")

    after = resident()
    sum(int(there.gguf.data(name).sum()) for name in there.gguf.tensors)
    assert resident() > there.gguf.nbytes / 2 > 8 * after


def test_values_that_halves_cannot_hold_stay_whole():
    big = np.full((2, 1 << 20), 1e6, np.float32)
    weights = float_weights({"w": big})
    on_device = DeviceWeights(weights, torch.device("cpu"), "f16")
    assert on_device.matrix(weights["w"], "w").stored.dtype == torch.float32


def test_close_gives_memory_back(opened, ids):
    there, _ = opened()
    there.logits(ids)
    engine = there.engine
    there.close()
    assert (engine.backend.weights.nbytes, engine.cache.nbytes) == (0, 0)


# --- the list ---


def test_list_of_mps_operators_is_what_torch_says():
    pytest.importorskip("yaml")
    pytest.importorskip("torchgen")
    table = functions()
    listed = json.loads(LIST.read_text())["ops"]
    gone = [n for n in listed if n in table and "MPS" not in keys(table, n)]
    assert gone == []
    for name in COMPOSITE:
        assert not {"CPU", "CUDA"} & keys(table, name), f"{name} has kernels of its own"


def test_the_mode_sees_what_mps_lacks(like_mps):
    with pytest.raises(AssertionError, match="float64"):
        torch.zeros(2, dtype=torch.float64)
    with pytest.raises(AssertionError, match="MPS has no"):
        torch.linalg.eigvals(torch.ones(2, 2))
