"""GGUF files whose values lie, and files with random bytes: loaded, and evaluated if accepted.

Every stage must refuse a file with a GGQError or cope, in a subprocess that would show any other
exception or signal: within 2 s of processor time, in memory of at most twice the file + 32 MiB.
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq import machine_code
from ggq.errors import FormatError, GGQError
from ggq.gguf import GGUFFile, GGUFWriter, open_gguf, spec, validate_model

pytestmark = pytest.mark.slow

SEED, BATCHES, PER_BATCH = 7, 4, 150
NUMBERS = (0, 1, 2, 3, 5, 16, 255, 65_536, 2**31 - 1, 2**31, 2**32 - 1, -1, -7, 2**63 - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 0.5)
TEXTS = ("", " ", "x", "gpt2", "llama", "bert", "t5", "\0", "é" * 50, "a b c", "../../x", "yarn")
PROMPT = "Hello, the world\n\n 123 <|im_start|>user äé <s>\x00 ▁"


def lie(rng: random.Random, value: Any, stored: int, item: int | None) -> tuple[Any, int | None]:
    """Return another value for a key, mostly of the same type, and its (item) type."""
    if rng.random() < 0.1:
        return rng.choice([(7, spec.U32), ("x", spec.STR), ([1, 2], spec.I32), (True, spec.BOOL)])
    if item is not None:
        return lie_in_array(rng, value, item), item
    if stored == spec.STR:
        return rng.choice((*TEXTS, value[: len(value) // 2], value + value)), stored
    if stored in spec.FLOAT_TYPES:
        return rng.choice(FLOATS), stored
    if stored == spec.BOOL:
        return not value, stored
    low, high = np.iinfo(spec.NUMPY_CODES[stored]).min, np.iinfo(spec.NUMPY_CODES[stored]).max
    return min(max(rng.choice((*NUMBERS, value + 1, value - 1)), int(low)), int(high)), stored


def lie_in_array(rng: random.Random, value: Any, item: int) -> list[Any]:
    items = list(value)
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(len(items) + 1)
        match rng.randrange(4):
            case 0:
                del items[at : at + rng.choice((1, 10, 10_000))]
            case 1:
                items[at:at] = items[at : at + 1]
            case 2 if items:
                items[at % len(items)] = items[rng.randrange(len(items))]
            case _ if items:
                items[at % len(items)] = lie_item(rng, item)
    return items


def lie_item(rng: random.Random, item: int) -> Any:
    if item == spec.STR:
        return rng.choice((b"", b"\xff\xfe", b" ", b"a", b"<0x41>", b"<0xZZ>", b"a b", b"\0" * 3))
    if item in spec.FLOAT_TYPES:
        return rng.choice(FLOATS)
    limits = np.iinfo(spec.NUMPY_CODES[item])
    return min(max(rng.choice(NUMBERS), int(limits.min)), int(limits.max))


def write_liar(rng: random.Random, f: GGUFFile, path: Path) -> None:
    """Write a copy of ``f`` with one to three lies; its structure stays valid."""
    targets = [key for key in f.metadata if not key.startswith("general.n")]
    lies = rng.sample(targets, rng.choice((0, 1, 1, 2, 3)))
    names = list(f.tensors)
    victim = rng.choice(names) if not lies or rng.random() < 0.2 else None
    with GGUFWriter(path, force=True) as w:
        w.copy_metadata(f.metadata)
        for key in lies:
            if rng.random() < 0.15:
                w.remove(key)
                continue
            w.add(key, *lie(rng, f.metadata[key], f.value_type(key), f.array_type(key)))
        tensors = {n: lie_about(rng, f, n, n == victim) for n in names}
        for name, data in tensors.items():
            if data is not None:
                w.add_tensor(name, *data[:2])
        w.begin()
        for name, data in tensors.items():
            if data is not None:
                w.write(name, data[2])


def lie_about(
    rng: random.Random, f: GGUFFile, name: str, victim: bool
) -> tuple[tuple[int, ...], int, np.ndarray] | None:
    """Return a tensor's shape, type and bytes; the victim's are changed, or it vanishes."""
    t, data = f.tensors[name], f.data(name)
    if not victim:
        return t.shape, t.type_id, data
    match rng.randrange(6):
        case 0:
            return None
        case 1:
            return t.shape[::-1], t.type_id, data
        case 2:
            return (t.n_elements,), t.type_id, data
        case 3:
            return (1, *t.shape)[-4:], t.type_id, data
        case 4:  # the same bytes as 8-bit integers
            return (*t.shape[:-1], t.row_bytes), 24, data
        case _:
            return t.shape, t.type_id, rng_bytes(rng, data)


def rng_bytes(rng: random.Random, data: np.ndarray) -> np.ndarray:
    """Return other bytes: NaN, infinities and denormals among the weights."""
    return np.frombuffer(rng.randbytes(data.nbytes), np.uint8).reshape(data.shape)


def load_all(path: Path) -> None:
    """Go through everything that a chat does before the first token."""
    from ggq import models
    from ggq.runtime.template.template import ChatTemplate
    from ggq.runtime.tokenizers import tokenizer_from_gguf

    with open_gguf(path) as f:
        validate_model(f)
        tokenizer = tokenizer_from_gguf(f)
        n_vocab = len(f.metadata["tokenizer.ggml.tokens"])
        for special in (False, True):
            ids = tokenizer.encode(PROMPT, parse_special=special)
            assert all(0 <= i < n_vocab for i in ids), ids
            assert isinstance(tokenizer.decode(ids), str)
        stream = tokenizer.stream()
        assert isinstance("".join(map(stream.push, range(n_vocab))) + stream.flush(), str)
        if "tokenizer.chat_template" in f.metadata:
            ChatTemplate.from_gguf(f).render([{"role": "user", "content": "Hi"}])
        architecture = models.get(f.require(spec.KEY_ARCHITECTURE, str))
        architecture.check(f, architecture.hparams(f))


def write_mutant(rng: random.Random, f: GGUFFile, path: Path) -> None:
    """Write a copy of ``f`` with random bytes in it, most of them in the header; or cut it."""
    data = bytearray(f.path.read_bytes())
    header = min(t.offset for t in f.tensors.values())
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(header if rng.random() < 0.8 else len(data))
        data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1 << rng.randrange(8)))
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)


def evaluate(path: Path) -> None:
    """Load a file for generation; run the kernels for one, few and many tokens."""
    with ggq.load(path, n_ctx=64, threads=1) as model:
        n = len(model.gguf.metadata["tokenizer.ggml.tokens"])
        ids = [(7 * i + 1) % n for i in range(20)]
        assert model.logits(ids).shape == (20, model.hparams.n_vocab)
        session = model.session()
        for some in (ids[:3], ids[:1]):
            session.evaluate(some)
        session.close()
        next(model.generate(ids[:2], max_tokens=3, temperature=0.0), None)


class Limits:
    """Ends this process by a signal where a file takes more than 2 s; compiling does not count."""

    def __init__(self) -> None:
        self._base = 0
        if hasattr(signal, "setitimer"):
            machine_code.set_listener(lambda done, total: self._count(done == total))

    def start(self) -> None:
        self._count(True)
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            self._base = self._resident("VmRSS")

    def end(self, size: int) -> None:
        self._count(False)
        grown = self._resident("VmHWM") - self._base if self._base else 0
        assert grown <= 2 * size + (32 << 20), f"{grown >> 20} MiB for a file of {size} bytes"

    def _count(self, on: bool) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 2.0 if on else 0)

    def _resident(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def attack(seed: int, count: int, folder: Path) -> None:
    """Load ``count`` hostile files; any end but success or GGQError ends the process badly."""
    rng = random.Random(seed)
    paths = sorted(folder.glob("base*.gguf"))
    for path in paths:  # compile and import
        load_all(path)
        evaluate(path)
    bases = [open_gguf(path) for path in paths]
    target = folder / f"liar{seed}.gguf"
    accepted, limits = 0, Limits()
    for i in range(count):
        (write_mutant if i % 3 == 0 else write_liar)(rng, rng.choice(bases), target)
        limits.start()
        try:
            load_all(target)
            evaluate(target)
            accepted += 1
        except GGQError as error:
            assert str(error).isprintable(), str(error)
        limits.end(target.stat().st_size)
    for base in bases:
        base.close()
    assert 0.1 * count < accepted < 0.9 * count, f"{accepted} of {count} accepted"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_liars_never_crash(tmp_path, batch):
    size = {"n_embd": 32, "n_head": 2, "n_head_kv": 1, "n_ff": 32, "head_dim": 16}
    make_tiny_llama(tmp_path / "base-spm.gguf", rope_factors=True, **size)
    make_tiny_llama(tmp_path / "base-bpe.gguf", vocab="bpe", type_id=1, **size)
    here = Path(__file__).parent
    call = f"attack({SEED + batch}, {PER_BATCH}, Path({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from test_hostile_load import *; " + call],
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_file_that_changes_after_opening_is_noticed(tmp_path):
    path = make_tiny_llama(tmp_path / "model.gguf")
    with ggq.load(path, n_ctx=64, threads=1) as model:
        session = model.session()
        session.evaluate([1, 2])
        os.truncate(path, 4096)
        with pytest.raises(FormatError, match="the file changed while it was open"):
            session.evaluate([3])
        session.close()
        with pytest.raises(FormatError, match="the file changed while it was open"):
            model.logits([3])


def test_without_mapping_a_file_may_change(tmp_path):
    path = make_tiny_llama(tmp_path / "model.gguf")
    with ggq.load(path, n_ctx=64, threads=1) as model:
        expected = model.logits([1, 2, 3])
    with ggq.load(open_gguf(path, use_mmap=False), n_ctx=64, threads=1) as model:
        os.truncate(path, 4096)
        assert np.array_equal(model.logits([1, 2, 3]), expected)
