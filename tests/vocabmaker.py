"""Trains small tokenizers and writes them as Hugging Face folders; toy ones from GGUF keys.

Not a test itself. Trained on a text in many scripts, so that every script has merges.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ggufmaker
from tokenizers import (  # fmt: skip
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from ggq.converters.vocab.compare import TEXT
from ggq.runtime.tokenizers import tokenizer_from_gguf
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
          "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
          "max_position_embeddings": 32, "rms_norm_eps": 1e-5}  # fmt: skip
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_json(folder: Path, name: str, value: Any) -> None:
    """Write one JSON file of the folder."""
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def split_of(pre: str) -> Any:
    """Return the pre-tokenizer of a table id as tokenizer.json has it."""
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in PRE_TOKENIZERS[pre].patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*steps, last])


def bpe_folder(
    folder: Path,
    split: Any,
    *,
    nfc: bool = False,
    ignore_merges: bool = False,
    bos: str | None = None,
    extra: tuple[AddedToken, ...] = (),
    padding: int = 5,
    config: dict[str, Any] | None = None,
) -> Path:
    """Train a byte-level BPE with ``split`` and write its folder; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tok.pre_tokenizer, tok.decoder = split, decoders.ByteLevel()
    if nfc:
        tok.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator([TEXT], trainer)
    tok.add_tokens(list(extra))
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        tok.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tok.token_to_id(bos))]
        )
    tok.save(str(folder / "tokenizer.json"))
    write_json(
        folder,
        "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos or "<|im_start|>",
         "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": TEMPLATE,
         "clean_up_tokenization_spaces": False, **(config or {})},
    )  # fmt: skip
    n_vocab = tok.get_vocab_size() + padding
    write_json(folder, "config.json", {**CONFIG, "vocab_size": n_vocab, "eos_token_id": 2})
    return folder


def spm_folder(folder: Path, *, padding: int = 3, **options: Any) -> Path:
    """Train a SentencePiece BPE with byte fallback, write tokenizer.model and configs."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=model, model_type="bpe",
        vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=0.98, minloglevel=2, num_threads=1,
        **options,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    added = {"600": {"content": "<|end|>", "special": True}, "601": {"content": "<tool>"}}
    write_json(
        folder,
        "tokenizer_config.json",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True,
         "add_eos_token": False, "tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATE,
         "added_tokens_decoder": added},
    )  # fmt: skip
    write_json(
        folder,
        "config.json",
        {**CONFIG, "vocab_size": 602 + padding, "bos_token_id": 1, "eos_token_id": 2},
    )
    return folder


def fast_spm_folder(folder: Path, *, prepend: bool = True) -> Path:
    """Train a BPE on U+2581 pieces with byte fallback: SPM that has only a tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = [normalizers.Prepend("▁")] if prepend else []
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prepend else [])
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))],
        limit_alphabet=120,
        show_progress=False,
    )
    lines = [line.replace(" ", "▁") for line in TEXT.split("\n")]
    pieces = [word for line in lines for word in line.replace("▁", " ▁").split(" ") if word]
    tok.train_from_iterator(pieces, trainer)
    data = json.loads(tok.to_str())
    data["added_tokens"] = data["added_tokens"][:3]  # the bytes are plain pieces
    write_json(folder, "tokenizer.json", data)
    write_json(
        folder,
        "tokenizer_config.json",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True,
         "tokenizer_class": "PreTrainedTokenizerFast"},
    )  # fmt: skip
    n_vocab = len(data["model"]["vocab"]) + 2
    write_json(folder, "config.json", {**CONFIG, "vocab_size": n_vocab, "bos_token_id": 1})
    return folder


# -- toy tokenizers from ggufmaker's keys


def metadata(keys: dict, **changes) -> dict:
    """Return ggufmaker's keys as plain metadata, with keys changed or (None) left out."""
    plain = {key: value[0] if isinstance(value, tuple) else value for key, value in keys.items()}
    plain |= {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    return {key: value for key, value in plain.items() if value is not None}


def bpe(pre: str = "gpt-2", extra: dict[str, int] | None = None, **changes):
    """Return a toy byte-level tokenizer, with ``extra`` tokens (text -> type) at the end."""
    keys = metadata(ggufmaker.bpe_vocab(pre))
    for text, kind in (extra or {}).items():
        keys["tokenizer.ggml.tokens"] = [*keys["tokenizer.ggml.tokens"], text]
        keys["tokenizer.ggml.token_type"] = [*keys["tokenizer.ggml.token_type"], kind]
    return tokenizer_from_gguf(metadata(keys, **changes))


def spm(**changes):
    """Return a toy SPM tokenizer."""
    return tokenizer_from_gguf(metadata(ggufmaker.spm_vocab(), **changes))
