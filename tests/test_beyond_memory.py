"""Models larger than the memory: experts' pages are asked for, exactly; nothing else changes."""

import ctypes
import json
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from floats import float_weights
from ggufmaker import F16, make_tiny_llama

from benchmarks import synthetic
from ggq import cli
from ggq.commands._sizes import Size
from ggq.gguf import open_gguf
from ggq.models.layers.base import Memory
from ggq.models.layers.experts import Routing
from ggq.runtime.backends.numba.values import DECODE_TOKENS
from ggq.runtime.cache import memory
from ggq.runtime.engine import weights
from ggq.runtime.engine.cpu.backend import CPUBackend
from ggq.runtime.engine.engine import Engine
from ggq.runtime.kernels.ask import ask
from ggq.runtime.kernels.system import WILL_NEED, madvise
from ggq.runtime.measure.disk import disk_rate

N_EXPERT, N_USED, WIDTH, HIDDEN, TOKENS = 8, 2, 64, 96, 40
PAGE = 4096


class Layer:
    """An architecture of one layer of experts."""

    def forward(self, ops, hp):
        x = ops.embed("x")
        routed = ops.route(ops.linear(x, "router"), Routing(N_EXPERT, N_USED))
        gate, up = ops.experts(x, routed, "gate"), ops.experts(x, routed, "up")
        y = ops.experts(ops.gate(gate, up, kind="silu"), routed, "down")
        return ops.gather(ops.combine(y, routed))


class LargerThanMemory(dict):
    """Weights that say so."""

    beyond_memory = True


def logits_and_labels(held):
    """Return what steps of one, few and many tokens give, and what each plan's rows are called."""
    hp = SimpleNamespace(arch="experts", n_vocab=WIDTH, causal=True, pictures=False)
    hp.memories = [Memory(1, 32, 32)]
    backend = CPUBackend(Layer(), hp, held, n_ctx=64, n_threads=2, cache_type="f32")
    with closing(Engine(hp, backend)) as engine:
        engine.check_generates = lambda: None  # rows of a layer stand for logits
        sequence = engine.sequence()
        parts = np.split(np.arange(TOKENS), [1, 1 + DECODE_TOKENS])
        rows = [engine.evaluate(sequence, ids, every=True) for ids in parts]
        labels = {n: plan.labels for (_, n), plan in backend._plans.items()}
        return np.concatenate(rows), labels


def test_asking_comes_first_and_changes_no_bit(rng):
    shapes = {"x": (TOKENS, WIDTH), "router": (N_EXPERT, WIDTH)}
    shapes |= dict.fromkeys(("gate", "up"), (N_EXPERT, HIDDEN, WIDTH))
    shapes["down"] = (N_EXPERT, WIDTH, HIDDEN)
    tensors = float_weights({name: rng.standard_normal(s) for name, s in shapes.items()})
    want, plain = logits_and_labels(tensors)
    got, asking = logits_and_labels(LargerThanMemory(tensors))
    assert np.array_equal(got, want)
    assert not any("ask for experts" in labels for labels in plain.values())
    decoding, prefill = asking[DECODE_TOKENS], asking[max(asking)]
    assert prefill == plain[max(plain)]  # that reads nearly all, in order
    asked = [i for i, label in enumerate(decoding) if label == "ask for experts"]
    assert len(asked) == 3  # of the last stack, too, before the first is computed with
    assert max(asked) < decoding.index("experts F32")


@pytest.mark.skipif(not madvise(), reason="the system has no madvise")
def test_exactly_the_chosen_experts_are_asked_for():
    told, address, expert_bytes, first, needed = [], 37 * PAGE, 10_000, 300, 5000
    advise = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)(
        lambda *call: told.append(call)
    )
    ids = np.array([[3, 0, -1, -1], [7, 1, -1, -1]], np.int64)  # rows are wider than what is used
    args = ask.arguments.filled(
        ids=(ids.ctypes.data, ids.strides[0]),
        n_used=2,
        weights=address + first,
        expert_bytes=expert_bytes,
        needed_bytes=needed,
        page_bytes=PAGE,
        advise=ctypes.cast(advise, ctypes.c_void_p).value,
    )
    block = np.array(args, np.int64)
    ask.ctypes(block.ctypes.data, 1, 4)
    want = []
    for expert in (0, 7, 1):
        start = address + first + expert * expert_bytes
        page = start - start % PAGE
        want.append((page, start + needed - page, WILL_NEED))
    assert told == want


def test_a_model_is_beyond_memory_by_its_mapped_bytes(tmp_path, monkeypatch):
    path = make_tiny_llama(tmp_path / "tiny.gguf")
    size = path.stat().st_size
    for free, beyond in ((size, False), (size - 1, True), (None, False)):
        monkeypatch.setattr(weights, "free_memory", lambda free=free: free)
        with open_gguf(path) as file:
            assert weights.Weights(file).beyond_memory is beyond
    with open_gguf(path, use_mmap=False) as file:  # it has been read
        monkeypatch.setattr(weights, "free_memory", lambda: 1)
        assert not weights.Weights(file).beyond_memory


GROUPS = {
    "cgroup": {"memory.max": "5000", "memory.current": "4000"},
    "cgroup/memory": {"memory.limit_in_bytes": "5000", "memory.usage_in_bytes": "4000"},
}


@pytest.mark.parametrize("folder", GROUPS)
def test_what_a_container_caches_of_files_is_free(folder, tmp_path, monkeypatch):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/meminfo", "MemTotal: 99 kB\nMemAvailable: 10 kB\n")
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    assert memory.free_memory() == 10 * 1024
    for name, text in GROUPS[folder].items():
        write(f"sys/fs/{folder}/{name}", text)
    prefix = "total_" if "/" in folder else ""
    stat = f"anon 9\n{prefix}active_file 700\n{prefix}inactive_file 50\ninactive_anon 8\n"
    write(f"sys/fs/{folder}/memory.stat", stat)
    assert memory.free_memory() == 5000 - 4000 + 750
    limit = next(iter(GROUPS[folder]))
    write(f"sys/fs/{folder}/{limit}", "max" if limit == "memory.max" else str(2**63 - 4096))
    assert memory.free_memory() == 10 * 1024


def test_a_token_reads_from_disk_what_does_not_stay():
    size = Size("Q4_K", 100 << 30, 10 << 30, experts=(90 << 30, 6 << 30))
    more = size.memory(0) - size.n_bytes

    def read(room):  # of the weights, in GiB
        return size.from_disk(0, round(((room << 30) + more) / 0.85) + 1) / 2**30

    assert [round(read(room), 2) for room in (100, 55, 10, 9)] == [0, 3, 6, 10]
    dense = Size("Q4_K", 100 << 30, 10 << 30)
    assert dense.from_disk(0, 99 << 30) == dense.per_token


def test_estimate_tells_what_the_disk_leaves(tmp_path, capsys):
    path = make_tiny_llama(tmp_path / "tiny.gguf", F16, n_embd=256, n_ff=8192)  # above 2 MiB

    def estimate(*more):
        given = ["estimate", str(path), "--bandwidth=10", "--json", *more]
        assert cli.main(given) == 0
        facts = json.loads(capsys.readouterr().out)
        return facts, {row["type"]: row for row in facts["types"]}["as it is"]

    facts, row = estimate("--memory=10")
    assert (row["disk_bytes_per_token"], facts["disk_bytes_per_s"]) == (0, None)
    facts, row = estimate("--memory=0.05", "--disk=0.5")
    assert row["tokens_per_s_at_most"] == pytest.approx(0.5e9 / row["disk_bytes_per_token"])
    facts, row = estimate("--memory=0.05")
    assert (facts["disk_bytes_per_s"] is None) == (row["tokens_per_s_at_most"] is None)
    assert cli.main(["estimate", str(path), "--bandwidth=10", "--memory=0.05", "--disk=0.5"]) == 0
    assert "read from disk for each token, at 0.50 GB/s" in capsys.readouterr().err


def test_estimate_knows_experts(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(synthetic.MIXTURES, "tiny", ((256, 1, 4, 2, 256, 320, False), (8, 2, 256)))
    path = tmp_path / "tiny.gguf"
    synthetic.write("tiny", "Q4_K_M", path)
    assert cli.main(["estimate", str(path), "--bandwidth=10", "--json"]) == 0
    row, *others = json.loads(capsys.readouterr().out)["types"]
    experts = 3 * 8 * 256 * 256 * 144 // 256 + 8 * 256 * 256 * (210 - 144) // 256  # down is Q6_K
    read = 10e9 / row["tokens_per_s_at_most"]
    assert path.stat().st_size - read >= 0.75 * experts  # six of eight are not read
    same = next(other for other in others if other["type"] == "Q4_K_M")
    assert same["tokens_per_s_at_most"] == pytest.approx(row["tokens_per_s_at_most"])


def test_a_disk_that_cannot_be_measured_says_none(tmp_path):
    small = tmp_path / "small"
    small.write_bytes(b"x")
    assert disk_rate(small) is None
