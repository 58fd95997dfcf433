"""Hostile GGUF files: handcrafted ones (after ggml's test-gguf.cpp and known CVEs) and mutations.

Every one must end in one clear line naming what is wrong, quickly and without using memory.
"""

import os
import random
import re
import signal
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from ggufmaker import (
    array_pair,
    bpe_vocab,
    make_tiny_llama,
    pair,
    raw_gguf,
    string_pair,
    tensor_info,
    text,
    u32_pair,
)

from ggq.errors import GGQError
from ggq.gguf import open_gguf, spec, validate_model

HUGE = 2**64 - 1
SEED, BATCHES, PER_BATCH = 20260101, 8, 250


def q(value: int) -> bytes:
    return struct.pack("<Q", value)


def one_tensor(*args, data=bytes(64), **kwargs) -> bytes:
    return raw_gguf((), (tensor_info(*args, **kwargs),), data)


# name -> (bytes, words that the message must hold)
STRUCTURE = {
    "empty file": (b"", "header"),
    "only magic": (b"GGUF", "end of the file"),
    "bad magic": (raw_gguf(magic=b"GGUP"), "not a GGUF file"),
    "old ggml magic": (raw_gguf(magic=b"lmgg"), "not a GGUF file"),
    "magic with control characters": (raw_gguf(magic=b"\x1b[2J"), r"\\x1b"),
    "version 0": (raw_gguf(version=0), "version 0"),
    "version 1": (raw_gguf(version=1), "version 1"),
    "version of the future": (raw_gguf(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "big-endian version 2": (b"GGUF" + struct.pack(">IQQ", 2, 1, 1), "big-endian"),
    "header cut": (raw_gguf()[:20], "end of the file"),
    "tensor count 2^64-1": (raw_gguf(n_tensors=HUGE), "tensors"),
    "tensor count 2^63": (raw_gguf(n_tensors=2**63), "tensors"),
    "tensor count beyond bytes": (raw_gguf(n_tensors=1000), "tensors"),
    "tensor count one too many": (
        raw_gguf((), (tensor_info("a", (8,)),), bytes(32), n_tensors=2),
        "tensor 1",
    ),
    "key count 2^64-1": (raw_gguf(n_keys=HUGE), "keys"),
    "key count beyond bytes": (raw_gguf(n_keys=1000), "keys"),
    "key count one too many": (raw_gguf((u32_pair("a", 1),) * 1, n_keys=2), "keys|key 1"),
    "million tiny keys": (
        raw_gguf(tuple(pair(f"{i:x}", 0, b"\0") for i in range(70_000))),
        "70000 keys",
    ),
    "key length 2^64-1": (raw_gguf((q(HUGE) + bytes(40),)), "key 0.*18446744073709551615"),
    "key length 2^63": (raw_gguf((q(2**63) + bytes(40),)), "key 0"),
    "key length beyond bytes": (raw_gguf((q(65_000) + bytes(40),)), "key 0.*end of the file"),
    "key length beyond limit": (raw_gguf((text(b"k" * 70_000) + bytes(40),)), "limit"),
    "empty key": (raw_gguf((u32_pair("", 1),)), "key 0.*empty"),
    "key with NUL": (raw_gguf((u32_pair("a\0b", 1),)), "NUL"),
    "key not UTF-8": (raw_gguf((pair(b"k\xff", 4, bytes(4)),)), "UTF-8"),
    "duplicate key": (raw_gguf((u32_pair("dup", 1), u32_pair("dup", 2))), "'dup'.*twice"),
    "value type 13": (raw_gguf((pair("key", 13, bytes(8)),)), "'key'.*type 13"),
    "value type 2^32-1": (raw_gguf((pair("key", 2**32 - 1, bytes(8)),)), "'key'.*type"),
    "value missing": (raw_gguf((pair("key", 10, b"\0\0"),)), "'key'.*end of the file"),
    "bool 2": (raw_gguf((pair("key", 7, b"\2"),)), "'key'.*bool"),
    "bool array with 7": (raw_gguf((array_pair("key", 7, 3, b"\0\1\7"),)), "'key'.*bool"),
    "string length 2^64-1": (raw_gguf((pair("key", 8, q(HUGE)),)), "'key'.*18446744073709551615"),
    "string length beyond bytes": (raw_gguf((pair("key", 8, q(1 << 29)),)), "'key'.*end of the"),
    "array of arrays": (raw_gguf((array_pair("key", 9, 1, bytes(24)),)), "'key'.*array of arrays"),
    "array of unknown type": (raw_gguf((array_pair("key", 77, 1, bytes(8)),)), "'key'.*type 77"),
    "array length 2^63 in 43 bytes": (raw_gguf((array_pair("k", 0, 2**63, b""),)), "'k'.*array"),
    "array length 2^64-1 of u64": (raw_gguf((array_pair("k", 10, HUGE, bytes(8)),)), "'k'.*array"),
    "array length that wraps in bytes": (
        raw_gguf((array_pair("k", 10, 2**61 + 1, bytes(64)),)),
        "'k'.*array",
    ),
    "array of 2^31 strings": (raw_gguf((array_pair("k", 8, 2**31, bytes(64)),)), "'k'.*array"),
    "array of five million empty strings": (
        raw_gguf((array_pair("k", 8, 5 << 20, bytes(40 << 20)),)),
        "'k'.*strings",
    ),
    "string in array 2^64-1 long": (
        raw_gguf((array_pair("k", 8, 2, text("a") + q(HUGE) + bytes(64)),)),
        "'k'.*end of the file",
    ),
    "string in array 2^63-20 long": (
        raw_gguf((array_pair("k", 8, 2, q(2**63 - 20) + bytes(64)),)),
        "'k'.*end of the file",
    ),
    "last string of array cut": (
        raw_gguf((array_pair("k", 8, 2, text("a") + q(9) + b"12345678"),)),
        "'k'.*end of the file",
    ),
    "alignment of type u64": (
        raw_gguf((pair("general.alignment", 10, q(32)),)),
        "general.alignment.*u64",
    ),
    "alignment as string": (raw_gguf((string_pair("general.alignment", "32"),)), "alignment.*str"),
    **{
        f"alignment {a}": (raw_gguf((u32_pair("general.alignment", a),)), f"alignment.*{a}")
        for a in (0, 1, 13, 2**17, 2**31, 2**32 - 1)
    },
    "name length 2^64-1": (raw_gguf((), (q(HUGE) + bytes(64),)), "tensor 0"),
    "name of 64 bytes": (one_tensor("n" * 64, (8,)), "tensor 0.*64"),
    "empty name": (one_tensor("", (8,)), "tensor 0.*empty"),
    "name with NUL": (one_tensor("a\0b", (8,)), "NUL"),
    "name with escapes": (one_tensor("a\x1b[31m\n", (0,)), r"'a\\x1b\[31m\\n'"),
    "duplicate name": (
        raw_gguf((), (tensor_info("t", (8,)), tensor_info("t", (8,), offset=32)), bytes(64)),
        "'t'.*twice",
    ),
    "no dimensions": (one_tensor("t", ()), "'t'.*0 dimensions"),
    "five dimensions": (one_tensor("t", (1,) * 5), "'t'.*5 dimensions"),
    "2^32-1 dimensions": (one_tensor("t", (8,), n_dims=2**32 - 1), "'t'.*dimensions"),
    "zero dimension": (one_tensor("t", (8, 0)), "'t'.*dimension of 0"),
    "negative dimension": (one_tensor("t", (2**64 - 8,)), "'t'.*needs"),
    "elements wrap to a few": (one_tensor("t", (2**32, 2**32, 16)), "'t'.*needs"),
    "bytes wrap to a few": (one_tensor("t", (2**62, 4)), "'t'.*needs"),
    "exabyte of blocks": (one_tensor("t", (2**63 - 256, 1), 12), "'t'.*needs"),
    "padding wraps to 0": (one_tensor("t", (2**64 - 16, 1), 24), "'t'.*needs"),
    "removed type Q4_2": (one_tensor("t", (32,), 4), "'t'.*removed"),
    "removed type Q4_0_8_8": (one_tensor("t", (32,), 33), "'t'.*removed"),
    "unknown type": (one_tensor("t", (32,), 99), "'t'.*type 99"),
    "type -1": (one_tensor("t", (32,), 2**32 - 1), "'t'.*type"),
    "row of 33 in Q4_0": (one_tensor("t", (33,), 2), "'t'.*Q4_0 blocks of 32"),
    "32 rows of 33 in Q4_0": (one_tensor("t", (33, 32), 2), "'t'.*Q4_0 blocks of 32"),
    "row of 128 in Q4_K": (one_tensor("t", (128,), 12), "'t'.*Q4_K blocks of 256"),
    "offset not 0": (one_tensor("t", (8,), offset=32), "'t'.*offset is 32, expected 0"),
    "offset 2^64-32": (one_tensor("t", (8,), offset=2**64 - 32), "'t'.*offset"),
    "offset unaligned": (one_tensor("t", (8,), offset=4), "'t'.*offset"),
    "tensors overlap": (
        raw_gguf((), (tensor_info("a", (8,)), tensor_info("b", (8,))), bytes(64)),
        "'b'.*expected 32",
    ),
    "gap between tensors": (
        raw_gguf((), (tensor_info("a", (8,)), tensor_info("b", (8,), offset=64)), bytes(128)),
        "'b'.*expected 32",
    ),
    "alignment other than offsets": (
        raw_gguf(
            (u32_pair("general.alignment", 64),),
            (tensor_info("a", (8,)), tensor_info("b", (8,), offset=32)),
            bytes(128),
        ),
        "'b'.*expected 64",
    ),
    "no data": (raw_gguf((), (tensor_info("t", (8,)),)), "'t'.*truncated"),
    "one byte short": (one_tensor("t", (8,), data=bytes(31)), "'t'.*truncated"),
    "name of thirty million bytes": (
        raw_gguf((), (text(b"\x1b" * 30_000_000) + bytes(64),)),
        "tensor 0.*30000000",
    ),
    "magic word for an architecture, thirty million times": (
        raw_gguf((string_pair("general.architecture", "\x1b" * 30_000_000),)),
        "general.architecture.*no architecture name",
    ),
    "split count 65535": (
        raw_gguf((pair("split.count", 2, b"\xff\xff"),)),
        "split.count.*65535 shards",
    ),
    "split under another name": (
        raw_gguf((pair("split.count", 2, b"\2\0"),)),
        "one of 2 shards but is not named",
    ),
    "split count as string": (raw_gguf((string_pair("split.count", "../x"),)), "split.count.*str"),
}


def arr(values, item_type=spec.I32):
    return (values, item_type)


# name -> (changed keys of a valid model, words that the message must hold)
MEANING = {
    "no architecture": ({"general.architecture": None}, "general.architecture.*missing"),
    "architecture a number": ({"general.architecture": 7}, "general.architecture.*u32"),
    "architecture a path": ({"general.architecture": "../x"}, "general.architecture"),
    "an adapter": ({"general.type": "adapter"}, "general.type.*adapter"),
    "no block count": ({"llama.block_count": None}, "llama.block_count.*missing"),
    "block count 0": ({"llama.block_count": 0}, "llama.block_count.*is 0"),
    "block count 513": ({"llama.block_count": 513}, "llama.block_count.*513"),
    "block count above blocks": ({"llama.block_count": 3}, "block_count.*blk.2"),
    "block count a string": ({"llama.block_count": "2"}, "llama.block_count.*str"),
    "block count a float": ({"llama.block_count": 2.0}, "llama.block_count.*f32"),
    "width 0": ({"llama.embedding_length": 0}, "embedding_length"),
    "width 2^32-1": ({"llama.embedding_length": 2**32 - 1}, "embedding_length"),
    "context 0": ({"llama.context_length": 0}, "context_length"),
    "context negative": ({"llama.context_length": -1}, "context_length.*-1"),
    "heads do not divide": (
        {"llama.attention.head_count": 5, "llama.attention.key_length": None},
        "head_count",
    ),
    "key-value heads do not divide": (
        {"llama.attention.head_count_kv": 3},
        "head_count_kv.*evenly",
    ),
    "key-value heads per layer, too few": (
        {"llama.attention.head_count_kv": arr([2])},
        "head_count_kv.*1 values for 2 layers",
    ),
    "key-value heads per layer, negative": (
        {"llama.attention.head_count_kv": arr([2, -2])},
        "head_count_kv.*-2",
    ),
    "heads as strings": ({"llama.attention.head_count": arr(["4", "4"], spec.STR)}, "head_count"),
    "head width 0": ({"llama.attention.key_length": 0}, "key_length"),
    "epsilon NaN": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon.*finite"),
    "sparsity NaN": ({"llama.activation_sparsity_scale": float("nan")}, "sparsity.*finite"),
    "epsilon 0": ({"llama.attention.layer_norm_rms_epsilon": 0.0}, "epsilon"),
    "rope base infinite": ({"llama.rope.freq_base": float("inf")}, "freq_base.*finite"),
    "rope base negative": ({"llama.rope.freq_base": -1.0}, "freq_base"),
    "rope base a string": ({"llama.rope.freq_base": "x"}, "freq_base.*str"),
    "more experts used than there are": (
        {"llama.expert_count": 4, "llama.expert_used_count": 8},
        "expert_used_count.*8 of 4",
    ),
    "experts but none used": ({"llama.expert_count": 4}, "expert_used_count"),
    "sampling temperature NaN": ({"general.sampling.temp": float("nan")}, "general.sampling.temp"),
    "template a number": ({"tokenizer.chat_template": 3}, "chat_template.*u32"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens.*missing"),
    "tokens empty": ({"tokenizer.ggml.tokens": arr([], spec.STR)}, "tokens.*empty"),
    "tokens are numbers": ({"tokenizer.ggml.tokens": arr([1, 2])}, "tokens.*strings"),
    "tokens fewer than rows": (
        {
            "tokenizer.ggml.tokens": arr(["a"] * 300, spec.STR),
            "tokenizer.ggml.token_type": None,
        },
        "token_embd.weight.*300",
    ),
    "no tokenizer model": ({"tokenizer.ggml.model": None}, "tokenizer.ggml.model.*missing"),
    "types of another length": ({"tokenizer.ggml.token_type": arr([1, 1])}, "token_type.*2 values"),
    "types out of range": ({"tokenizer.ggml.token_type": arr([99] * 269)}, "token_type.*outside"),
    "types are strings": ({"tokenizer.ggml.token_type": arr(["1"], spec.STR)}, "token_type"),
    "scores of another length": (
        {"tokenizer.ggml.scores": arr([0.0], spec.F32)},
        "scores.*1 values",
    ),
    "scores NaN": ({"tokenizer.ggml.scores": arr([np.nan] * 269, spec.F32)}, "scores.*NaN"),
    "merge without a space": (
        {"tokenizer.ggml.merges": arr(["a b", "ab"], spec.STR)},
        "merges.*item 1",
    ),
    "merge with nothing right": (
        {"tokenizer.ggml.merges": arr(["ab "], spec.STR)},
        "merges.*item 0",
    ),
    "merges are numbers": ({"tokenizer.ggml.merges": arr([1])}, "merges.*strings"),
    "bos outside": ({"tokenizer.ggml.bos_token_id": 269}, "bos_token_id.*269"),
    "eos outside": ({"tokenizer.ggml.eos_token_id": 2**31}, "eos_token_id"),
    "eot negative": ({"tokenizer.ggml.eot_token_id": -2}, "eot_token_id.*-2"),
    "bos a string": ({"tokenizer.ggml.bos_token_id": "1"}, "bos_token_id.*str"),
    "add_bos a number": ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token.*u32"),
}


def examine(path: Path) -> None:
    """Read everything there is, as a program that loads the model would."""
    with open_gguf(path) as f:
        for key in f.metadata:
            value = f.metadata[key]
            if f.array_type(key) == spec.STR:
                assert len(value.tolist()) == len(value)
        validate_model(f)
        for name in f.tensors:
            assert f.data(name).sum(dtype=np.int64) >= 0  # touches every byte


def message_of(path: Path) -> str:
    """Return the one-line message of a file that must be refused."""
    with pytest.raises(GGQError) as caught:
        examine(path)
    message = str(caught.value)
    assert message.isprintable() and path.name in message and len(message) < 500
    return message


@pytest.mark.parametrize("name", STRUCTURE)
def test_broken_structure_is_named(tmp_path, name):
    data, words = STRUCTURE[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        message = message_of(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert re.search(words, message), message
    assert peak <= 2 * len(data) + (32 << 20)


@pytest.mark.parametrize("name", MEANING)
def test_broken_meaning_is_named(tmp_path, name):
    changes, words = MEANING[name]
    path = make_tiny_llama(
        tmp_path / "model.gguf", n_embd=16, n_ff=16, vocab=bpe_vocab(), metadata=changes
    )
    message = message_of(path)
    assert re.search(words, message), message


def mutate(rng: random.Random, data: bytes, header: int) -> bytes:
    """Return a copy with one to four changes, nearly all of them in the header."""
    out = bytearray(data)
    extremes = (0, 1, 7, 255, 2**31 - 1, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, HUGE)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(header if rng.random() < 0.95 else len(data)) % max(1, len(out))
        size = rng.choice((1, 2, 4, 8, 24, 100))
        match rng.randrange(7):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 1] = bytes([out[at] ^ (1 << rng.randrange(8))])
            case 2:
                out[at : at + 8] = q(rng.choice(extremes))
            case 3:
                out[at : at + 4] = struct.pack("<I", rng.randrange(50))
            case 4:
                del out[at : at + size]
            case 5:
                out[at:at] = out[at : at + size]
            case _:
                del out[rng.choice((at, len(out) - size)) :]
        if not out:
            return b""
    return bytes(out)


def fuzz(seed: int, count: int, folder: Path) -> None:
    """Examine ``count`` mutations; anything but success or GGQError ends the process badly."""
    rng = random.Random(seed)
    bases = []
    for path in sorted(folder.glob("base*.gguf")):
        with open_gguf(path) as f:
            bases.append((path.read_bytes(), min(t.offset for t in f.tensors.values())))
    target = folder / f"mutant{seed}.gguf"
    before, refused = peak_memory(), 0
    for _ in range(count):
        target.write_bytes(mutate(rng, *rng.choice(bases)))
        if hasattr(signal, "alarm"):
            signal.alarm(2)  # unhandled: kills this process
        try:
            examine(target)
        except GGQError as error:
            assert str(error).isprintable(), str(error)
            refused += 1
    if hasattr(signal, "alarm"):
        signal.alarm(0)
    limit = 2 * max(len(data) for data, _ in bases) + (32 << 20)
    assert peak_memory() - before <= limit, f"{peak_memory() - before} bytes"
    assert refused > count // 2, f"only {refused} of {count} mutations were refused"


def peak_memory() -> int:
    """Return the largest resident size of this process so far in bytes, 0 where unknown."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutations_never_crash(tmp_path, batch):
    make_tiny_llama(tmp_path / "base-spm.gguf", n_embd=16, n_ff=16)
    make_tiny_llama(tmp_path / "base-bpe.gguf", n_embd=32, n_ff=32, vocab="bpe", type_id=1)
    call = f"fuzz({SEED + batch}, {PER_BATCH}, Path({str(tmp_path)!r}))"
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from test_gguf_hostile import *; " + call],
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr
