"""Wall time of ``ggq convert --dry-run`` on a folder of Llama 3.1 8B's shape, or on any source.

    python benchmarks/dry_run.py [SOURCE ...] [--repeats 5] [--folder DIR]

The folder is made of headers alone: four sparse shards of the right sizes, config.json and a
byte-level BPE tokenizer of 128,256 tokens. Each run is a fresh process; the median is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ggq.converters.safetensors import write_header

N_VOCAB, WIDTH, LAYERS, FF, KV = 128_256, 4096, 32, 14336, 1024
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": FF,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": N_VOCAB,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the checkpoint's tensors."""
    found = {"model.embed_tokens.weight": (N_VOCAB, WIDTH), "lm_head.weight": (N_VOCAB, WIDTH)}
    found["model.norm.weight"] = (WIDTH,)
    for i in range(LAYERS):
        block = {
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.k_proj": (KV, WIDTH),
            "self_attn.v_proj": (KV, WIDTH),
            "self_attn.o_proj": (WIDTH, WIDTH),
            "mlp.gate_proj": (FF, WIDTH),
            "mlp.up_proj": (FF, WIDTH),
            "mlp.down_proj": (WIDTH, FF),
            "input_layernorm": (WIDTH,),
            "post_attention_layernorm": (WIDTH,),
        }
        found |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    return found


def letters() -> list[str]:
    """Return GPT-2's letter of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(extra)) for b in range(256)]


def tokenizer() -> dict:
    """Return tokenizer.json: every pair of bytes, then pairs and one more byte."""
    base = letters()
    merges = [(a, b) for a in base for b in base]
    merges += [(a + b, c) for a in base for b in base for c in base[97:98]]
    tokens = ["<s>", "</s>", *base, *(a + b for a, b in merges)][:N_VOCAB]
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    added = [{"id": i, "content": t, "special": True} for i, t in enumerate(tokens[:2])]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    kept = merges[: N_VOCAB - 258]
    return {
        "version": "1.0",
        "added_tokens": [{**token, **flags} for token in added],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, {**bytes_, "use_regex": False}],
        },
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {t: i for i, t in enumerate(tokens)},
            "merges": [list(pair) for pair in kept],
        },
    }


def make(folder: Path) -> Path:
    """Write the folder; its weights are holes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    names, weight_map = list(shapes()), {}
    for i in range(4):
        part = {n: ("BF16", shapes()[n]) for n in names[i::4]}
        shard = f"model-{i + 1:05}-of-00004.safetensors"
        header = write_header(part)
        with open(folder / shard, "wb") as file:
            file.write(header)
            sizes = (
                2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for _, shape in part.values()
            )
            file.truncate(len(header) + sum(sizes))
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="*")
    parser.add_argument("--folder", type=Path, default=Path("dry-run-8b"))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    sources = given.source if given.source else [str(make(given.folder))]
    for source in sources:
        command = [sys.executable, "-m", "ggq", "convert", source, "x.gguf", "--dry-run"]
        command.append("--allow-requantize")
        seconds = []
        for _ in range(given.repeats + 1):
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(time.perf_counter() - start)
        print(f"{source}: {statistics.median(seconds[1:]):.2f} s (of {given.repeats})")
        print(f"  {done.stdout.strip().splitlines()[-1]}{done.stderr}")


if __name__ == "__main__":
    main()
