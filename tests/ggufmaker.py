"""Makes small GGUF files for tests: valid tiny llama models, hand-built bytes for hostile cases.

Not a test itself. ``make_tiny_llama`` writes a model that ggq and llama.cpp can both run.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ggq.gguf import GGUFWriter, spec

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
WORDS = ("the", "he", "in", "an", "er", "on", "at", "is", "it", "ll", "th")
F32, F16, BF16 = 0, 1, 30


def spm_vocab() -> dict[str, Any]:
    """Return the tokenizer keys of a toy SPM vocabulary: unk 0, bos 1, eos 2, bytes, pieces."""
    pieces = ["▁", *(chr(c) for c in range(33, 127)), *WORDS, *("▁" + w for w in WORDS)]
    pieces = list(dict.fromkeys(pieces))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces)
    # Longer pieces score higher, as training would have it; single characters come last.
    scores = [0.0] * 259 + [-(100.0 / len(piece)) - i / 1000 for i, piece in enumerate(pieces)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": (tokens, spec.STR),
        "tokenizer.ggml.scores": (scores, spec.F32),
        "tokenizer.ggml.token_type": (types, spec.I32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }


def byte_letters() -> list[str]:
    """Return GPT-2's printable letter of each byte value."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(extra)) for b in range(256)]


def bpe_vocab(pre: str = "gpt-2") -> dict[str, Any]:
    """Return the tokenizer keys of a toy byte-level BPE vocabulary with ChatML control tokens."""
    merges = ["t h", "h e", "i n", "a n", "e r", "o n", "th e", "Ġ the", "Ġ a", "l l"]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *byte_letters(), *(m.replace(" ", "") for m in merges)]
    types = [CONTROL] * len(control) + [NORMAL] * (len(tokens) - len(control))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": (tokens, spec.STR),
        "tokenizer.ggml.token_type": (types, spec.I32),
        "tokenizer.ggml.merges": (merges, spec.STR),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
    }


def encode_rows(x: np.ndarray, type_id: int) -> np.ndarray:
    """Return float32 (rows, n) as uint8 rows of a type; block types go through ggq.quants."""
    x = np.ascontiguousarray(x, np.float32)
    if type_id == F32:
        return x.view(np.uint8)
    if type_id == F16:
        return x.astype(np.float16).view(np.uint8)
    if type_id == BF16:  # round to nearest even
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.uint8)
    from ggq import quants

    return quants.by_id(type_id).quantize(x)


def llama_shapes(
    n_vocab: int, n_layer: int, n_embd: int, n_ff: int, n_q: int, n_kv: int, tied: bool
) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a llama model: name -> shape, rows first; n_q, n_kv are row widths."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_vocab, n_embd)}
    for i in range(n_layer):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (n_embd,),
            f"blk.{i}.attn_q.weight": (n_q, n_embd),
            f"blk.{i}.attn_k.weight": (n_kv, n_embd),
            f"blk.{i}.attn_v.weight": (n_kv, n_embd),
            f"blk.{i}.attn_output.weight": (n_embd, n_q),
            f"blk.{i}.ffn_norm.weight": (n_embd,),
            f"blk.{i}.ffn_gate.weight": (n_ff, n_embd),
            f"blk.{i}.ffn_up.weight": (n_ff, n_embd),
            f"blk.{i}.ffn_down.weight": (n_embd, n_ff),
        }
    shapes["output_norm.weight"] = (n_embd,)
    if not tied:
        shapes["output.weight"] = (n_vocab, n_embd)
    return shapes


def random_weight(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 weights of a size that keeps activations near 1; norms lie around 1."""
    x = rng.standard_normal(shape, np.float32)
    return 1 + 0.1 * x if len(shape) == 1 else x / np.sqrt(np.float32(shape[-1]))


def make_tiny_llama(
    path: str | Path,
    type_id: int | Callable[[str, tuple[int, ...]], int] = F32,
    *,
    n_layer: int = 2,
    n_embd: int = 64,
    n_head: int = 4,
    n_head_kv: int = 2,
    head_dim: int | None = None,
    n_ff: int = 128,
    n_ctx: int = 256,
    vocab: str | Mapping[str, Any] = "spm",
    tied: bool = False,
    rope_factors: bool = False,
    metadata: Mapping[str, Any] | None = None,
    encode: Callable[[np.ndarray, int], np.ndarray] = encode_rows,
    split_max_bytes: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a valid tiny llama model with random weights; return its path (of the first shard).

    ``type_id``: a type for all matrices, or a function of (name, shape); 1-D tensors are F32.
    ``vocab``: "spm", "bpe" or tokenizer keys. ``metadata``: keys to set (value or (items, item
    type)) or, with None, to leave out.
    """
    head_dim = head_dim or n_embd // n_head
    keys = {"spm": spm_vocab, "bpe": bpe_vocab}[vocab]() if isinstance(vocab, str) else dict(vocab)
    n_vocab = len(keys["tokenizer.ggml.tokens"][0])
    choose = type_id if callable(type_id) else lambda name, shape: type_id
    hyper = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": 0,
        "llama.vocab_size": n_vocab,
        "llama.context_length": n_ctx,
        "llama.embedding_length": n_embd,
        "llama.block_count": n_layer,
        "llama.feed_forward_length": n_ff,
        "llama.attention.head_count": n_head,
        "llama.attention.head_count_kv": n_head_kv,
        "llama.attention.key_length": head_dim,
        "llama.attention.value_length": head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": head_dim,
        "llama.rope.freq_base": 10000.0,
    }
    shapes = llama_shapes(
        n_vocab, n_layer, n_embd, n_ff, n_head * head_dim, n_head_kv * head_dim, tied
    )
    if rope_factors:
        shapes["rope_freqs.weight"] = (head_dim // 2,)
    types = {n: F32 if len(s) == 1 else choose(n, s) for n, s in shapes.items()}
    rng = np.random.default_rng(seed)
    with GGUFWriter(path, split_max_bytes=split_max_bytes) as w:
        for key, value in {**hyper, **keys, **(metadata or {})}.items():
            if value is not None:
                w.add(key, value)
        for name, shape in shapes.items():
            w.add_tensor(name, shape, types[name])
        w.begin()
        for name, shape in shapes.items():
            x = random_weight(rng, name, shape).reshape(-1, shape[-1])
            w.write(name, encode(x, types[name]))
        return w.finish()[0]


# Hand-built bytes -----------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    """Return a length-prefixed string."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, type_id: int, payload: bytes) -> bytes:
    """Return one key, its value type and its raw value."""
    return text(key) + struct.pack("<I", type_id) + payload


def string_pair(key: str, value: str | bytes) -> bytes:
    """Return a key with a string value."""
    return pair(key, spec.STR, text(value))


def u32_pair(key: str, value: int) -> bytes:
    """Return a key with a u32 value."""
    return pair(key, spec.U32, struct.pack("<I", value))


def array_pair(key: str, item_type: int, count: int, payload: bytes) -> bytes:
    """Return a key with an array value whose count may lie."""
    return pair(key, spec.ARRAY, struct.pack("<IQ", item_type, count) + payload)


def tensor_info(
    name: str | bytes,
    dims: tuple[int, ...],
    type_id: int = 0,
    offset: int = 0,
    n_dims: int | None = None,
) -> bytes:
    """Return one row of the tensor table; ``dims`` in file order (row length first)."""
    dims_raw = struct.pack(f"<{len(dims)}Q", *dims)
    n = len(dims) if n_dims is None else n_dims
    return text(name) + struct.pack("<I", n) + dims_raw + struct.pack("<IQ", type_id, offset)


def raw_gguf(
    pairs: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    """Return the bytes of a GGUF file whose parts and counts may be wrong at will."""
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_keys is None else n_keys,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    if not data:
        return head
    return head.ljust(spec.pad(len(head), alignment), b"\0") + data
