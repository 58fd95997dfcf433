"""Write llama models with random weights: any shape, any file type, for measuring speed and memory.

    python benchmarks/synthetic.py 1b Q4_K_M model.gguf
    python benchmarks/synthetic.py moe Q4_K_M model.gguf

Weights are random, so text is noise; sizes, types and shapes are those of the real thing.
"""

from __future__ import annotations

import sys
from functools import cache
from math import prod

import numpy as np

from ggq import models, quants
from ggq.gguf import GGUFWriter, spec
from ggq.quants.mixtures import PlanTensor, plan_types

# width, layers, heads, key-value heads, feed-forward, vocabulary, tied
SHAPES = {
    "135m": (576, 30, 9, 3, 1536, 49152, True),
    "1b": (2048, 22, 32, 4, 5632, 32000, False),  # TinyLlama
    "1.2b": (2048, 16, 32, 8, 8192, 128256, True),  # Llama 3.2 1B
    "1.5b": (1536, 28, 12, 2, 8960, 151936, True),  # as wide as Qwen2.5 1.5B
    "8b": (4096, 32, 32, 8, 14336, 128256, False),  # Llama 3.1 8B
}
# experts, of them used, their feed-forward; as wide as Qwen3-30B-A3B's, of whose 48 layers 6
MIXTURES = {"moe": ((2048, 6, 32, 4, 768, 32000, False), (128, 8, 768))}
_ROWS = 128  # distinct random rows per shape and type; repeated to fill a tensor


@cache
def _rows(type_name: str, n: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((_ROWS, n)) * spread).astype(np.float32)
    return quants.get(type_name).quantize(x)


def _vocabulary(n: int) -> dict:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [f"▁w{i}" for i in range(n - len(tokens))]
    types = [2, 3, 3] + [6] * 256 + [1] * (n - 259)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": (tokens, spec.STR),
        "tokenizer.ggml.scores": ([-float(i) for i in range(n)], spec.F32),
        "tokenizer.ggml.token_type": (types, spec.I32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def write(shape: str | tuple, file_type: str, path: str) -> None:
    """Write the model; ``shape``: a name, or what SHAPES says of one."""
    experts = (0, 0, 0)
    if shape in MIXTURES:
        shape, experts = MIXTURES[shape]
    size = SHAPES[shape] if isinstance(shape, str) else shape
    width, layers, heads, kv_heads, ff, vocab, tied = size
    keys = {
        "general.architecture": "llama",
        "llama.context_length": 8192,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": ff,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
        "llama.vocab_size": vocab,
        "llama.expert_count": experts[0],
        "llama.expert_used_count": experts[1],
        **_vocabulary(vocab),
    }
    writer = GGUFWriter(path, force=True)
    for key, value in keys.items():
        writer.add(key, *(value if isinstance(value, tuple) else (value,)))
    head = width // heads
    shapes = {"token_embd.weight": (vocab, width), "output_norm.weight": (width,)}
    if not tied:
        shapes["output.weight"] = (vocab, width)
    for i in range(layers):
        block = {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (kv_heads * head, width),
            "attn_v": (kv_heads * head, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            **_feed_forward(width, ff, experts),
        }
        shapes |= {f"blk.{i}.{name}.weight": dims for name, dims in block.items()}
    _write_tensors(writer, shapes, file_type, (layers, heads, kv_heads, experts[0]))


def _feed_forward(width: int, ff: int, experts: tuple) -> dict:
    """Return the shapes of a layer's feed-forward, or of its experts and their router."""
    count, _, ff_expert = experts
    if not count:
        return {"ffn_gate": (ff, width), "ffn_up": (ff, width), "ffn_down": (width, ff)}
    return {
        "ffn_gate_inp": (count, width),
        "ffn_gate_exps": (count, ff_expert, width),
        "ffn_up_exps": (count, ff_expert, width),
        "ffn_down_exps": (count, width, ff_expert),
    }


def _write_tensors(writer, shapes, file_type, counts) -> None:
    class Shape:
        arch, (n_layer, n_head, n_head_kv, n_expert) = "llama", counts
        n_block = n_layer

    listed = [
        PlanTensor(name, dims, "F32" if len(dims) == 1 else "F16") for name, dims in shapes.items()
    ]
    types = plan_types(listed, Shape(), file_type)
    for name, type_name in types:
        writer.add_tensor(name, shapes[name], quants.get(type_name).ggml_id)
    writer.begin()
    for name, type_name in types:
        dims = shapes[name]
        if len(dims) == 1:
            writer.write(name, np.ones(dims, np.float32).view(np.uint8).reshape(1, -1))
            continue
        rows = _rows(type_name, dims[-1], 0.6 / dims[-1] ** 0.5)
        n_rows = prod(dims[:-1])
        for start in range(0, n_rows, _ROWS):
            writer.write(name, rows[: min(_ROWS, n_rows - start)])
    writer.finish()


if __name__ == "__main__":
    names = SHAPES | MIXTURES
    if len(sys.argv) != 4 or sys.argv[1] not in names:
        sys.exit(f"usage: synthetic.py {{{'|'.join(names)}}} TYPE OUT.gguf")
    assert models.get("llama")
    write(*sys.argv[1:])
