"""Makes tiny seeded Hugging Face folders: config, safetensors, tokenizer, generation settings.

Weights come from integers of numpy's frozen RandomState and exact arithmetic, so that they are the
same on every platform; no transformers needed.
"""

import json
from pathlib import Path

import numpy as np

TEXT = (
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs.\n"
    "def encode(rows, scale=1.5):\n    return [row * scale for row in rows if row > 0]\n"
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 3.14159, 2718281828!\n"
    "Съешь же ещё этих мягких французских булок. いろはにほへと ちりぬるを. 你好，世界。\n"
)
SPECIALS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def llama3_rope(context):
    """Return Llama 3.1's rope_scaling for a model first trained on ``context`` tokens."""
    factors = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    return {"rope_type": "llama3", **factors, "original_max_position_embeddings": context}


def make_hf(folder, dtype="F32", tokenizer="bpe", seed=1, extra=None, shards=1, **config):
    """Write a tiny model; ``config`` overrides LLAMA; ``extra``: more tensors by name. The folder.

    ``dtype``: F32, F16 or BF16; ``tokenizer``: "bpe", "spm" or None (then give vocab_size).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    full = {**LLAMA, **config}
    n_vocab = {"bpe": make_bpe, "spm": make_spm, None: lambda _: 384}[tokenizer](folder)
    full["vocab_size"] = full.get("vocab_size") or n_vocab
    full = {k: v for k, v in full.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(full, indent=1))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.6, "top_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(generation | {"top_k": 50}))
    rng = np.random.RandomState(seed)
    tensors = {n: weights(rng, s) for n, s in shapes_of(full)} | (extra or {})
    tensors |= {n: 0.2 * (x - 1) for n, x in tensors.items() if n.endswith(".bias")}
    save(folder, tensors, dtype, shards)
    return folder


def weights(rng, shape):
    """Return float32 values as trained weights have them: norms near 1, heavy-tailed matrices."""
    bell = sum(rng.randint(-(1 << 15), 1 << 15, shape, np.int64) for _ in range(4)) / (1 << 17)
    if len(shape) == 1:
        return (1 + 0.25 * bell).astype(np.float32)
    return ((bell + 4 * bell * bell * bell) * 0.0625).astype(np.float32)


def shapes_of(config):
    """Yield (HF name, shape) of a llama-like config."""
    n, ff = config["hidden_size"], config["intermediate_size"]
    heads, heads_kv = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or n // heads
    yield "model.embed_tokens.weight", (config["vocab_size"], n)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        projections = [
            ("self_attn.q_proj", heads * head, n),
            ("self_attn.k_proj", heads_kv * head, n),
        ]
        projections += [("self_attn.v_proj", heads_kv * head, n)]
        projections += [("self_attn.o_proj", n, heads * head)]
        projections += [("mlp.gate_proj", ff, n), ("mlp.up_proj", ff, n), ("mlp.down_proj", n, ff)]
        for name, rows, columns in projections:
            yield f"{p}{name}.weight", (rows, columns)
            if config["attention_bias" if "attn" in name else "mlp_bias"]:
                yield f"{p}{name}.bias", (rows,)
        yield f"{p}input_layernorm.weight", (n,)
        yield f"{p}post_attention_layernorm.weight", (n,)
    yield "model.norm.weight", (n,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], n)


def save(folder, tensors, dtype="F32", shards=1):
    """Write safetensors shards (with an index where there are several)."""
    from ggq.converters.safetensors import write_header

    names = list(tensors)
    groups = [names[i::shards] for i in range(shards)]
    weight_map = {}
    for i, group in enumerate(groups):
        name = f"model-{i + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        weight_map |= dict.fromkeys(group, name)
        header = write_header({n: (dtype, tensors[n].shape) for n in group})
        with open(folder / name, "wb") as file:
            file.write(header)
            for n in group:
                file.write(stored(tensors[n], dtype))
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def stored(x, dtype):
    """Return the bytes of ``x`` in a safetensors dtype; BF16 rounds to nearest even."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(x).astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def make_bpe(folder):
    """Write a byte-level BPE tokenizer of GPT-2's form; return its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def make_spm(folder):
    """Write a SentencePiece model with byte fallback; return its vocabulary size."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 4),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=384,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return 384
