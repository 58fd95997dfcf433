"""Tiny random encoders of transformers, with the tokenizers of their kinds; no tests here."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jina_twin
import nomic_moe_twin
import numpy as np
from hfmaker import make_bpe, save
from unigrammaker import make_unigram

WORDS = (
    "the a quick brown fox jump lazy dog box five dozen liquor jug pack with over my".split()  # noqa: SIM905
)
PIECES = [
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!?-",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]
TEXTS = (
    "The quick brown fox jumps over the lazy dog!",
    "Pack my box, with five dozen liquor jugs.",
    "fox",
    "a lazy dog packs a box over my five jugs - " * 9,
)
LINES = (*TEXTS, "Съешь же ещё этих мягких французских булок.", "你好，世界。 いろはにほへと")
CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class TinyEncoder:
    """A tiny encoder: its transformers class and config, its tokenizer's kind.

    ``peer``: whether llama.cpp reads the file; ``limit``: positions of a text; ``twin``: a module
    with the weights and the graph of a class that transformers lacks.
    """

    label: str
    arch: str
    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "wordpiece"
    suffix: str = "Model"
    cls_config: str = ""
    peer: bool = True
    limit: int = 512
    twin: Any = None


ROBERTA = {"max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1}
LATER = {"max_position_embeddings": 517, "pad_token_id": 4, "type_vocab_size": 1}
GEMMA = {
    "head_dim": 16,
    "num_key_value_heads": 2,
    "sliding_window": 24,
    "query_pre_attn_scalar": 16,
}
NOMIC_MOE = {
    **{"n_positions": 512, "max_trained_positions": 2048, "n_inner": 96, "n_embd": 64},
    **{"n_layer": 3, "n_head": 4, "layer_norm_epsilon": 1e-5, "rotary_emb_base": 1000.0},
    **{"moe_every_n_layers": 2, "num_experts": 4, "moe_top_k": 2, "type_vocab_size": 1},
    **{"activation_function": "gelu", "rotary_emb_fraction": 1.0, "pad_token_id": 1},
}
MODERN = {"local_attention": 24, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
MODERN |= {"cls_token_id": 0, "sep_token_id": 2}
ENCODERS = {
    e.label: e
    for e in (
        TinyEncoder("bert", "bert", "Bert"),
        TinyEncoder("nomic-bert", "nomic-bert", "NomicBert", {"rope_theta": 1000.0}),
        TinyEncoder("roberta", "bert", "Roberta", LATER, "bpe"),
        TinyEncoder("xlm-roberta", "bert", "XLMRoberta", ROBERTA, "unigram"),
        TinyEncoder(
            "jina-bert-v3", "jina-bert-v3", "JinaEmbeddingsV3",
            ROBERTA | {"rope_theta": 20000.0}, "unigram",
        ),
        TinyEncoder("jina-bert-v2", "jina-bert-v2", "JinaBert", twin=jina_twin),
        TinyEncoder(
            "nomic-bert-moe", "nomic-bert-moe", "NomicBert", NOMIC_MOE, "unigram",
            peer=False, twin=nomic_moe_twin,
        ),
        TinyEncoder(
            "nomic-bert-moe plain", "nomic-bert-moe", "NomicBert", NOMIC_MOE, "unigram",
            twin=SimpleNamespace(make=nomic_moe_twin.without_bias, hidden=nomic_moe_twin.hidden),
        ),
        TinyEncoder("modern-bert", "modern-bert", "ModernBert", MODERN, "bpe"),
        TinyEncoder(
            "gemma-embedding", "gemma-embedding", "Gemma3Text",
            GEMMA | {"use_bidirectional_attention": True, "num_hidden_layers": 7},
        ),
    )
}  # fmt: skip


def make_tokenizer(folder, kind="wordpiece", lines=None):
    """Write a tokenizer of a kind, that of ``lines`` if given; return the number of tokens."""
    if kind == "unigram":
        return make_unigram(folder, lines, 900) if lines else make_unigram(folder, LINES, 120)
    if kind == "bpe":
        return make_roberta_bpe(folder)
    return make_wordpiece(folder, lines or ())


def make_roberta_bpe(folder):
    """Write a byte-level BPE that puts <s> and </s> around texts, as RoBERTa's."""
    n_vocab = make_bpe(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    ids = {t["content"]: t["id"] for t in data["added_tokens"]}
    data["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", ids["</s>"]], "cls": ["<s>", ids["<s>"]],
        "trim_offsets": True, "add_prefix_space": False,
    }  # fmt: skip
    path.write_text(json.dumps(data))
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>"}
    config = {f"{k}_token": v for k, v in names.items()}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return n_vocab


def make_wordpiece(folder, lines=()):
    """Write a WordPiece tokenizer as BERT's, with the characters of ``lines``; return its size."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer = normalizers.BertNormalizer(lowercase=True)
    seen = dict.fromkeys("".join(map(normalizer.normalize_str, lines)).replace(" ", ""))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES, *WORDS, "##s", "##ed"]
    words += [*seen, *(f"##{c}" for c in seen)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tok.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tok.save(str(folder / "tokenizer.json"))
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    config = {f"{k}_token": v for k, v in names.items()} | {"tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocab)


def make_model(tiny, folder, lines=None, **more):
    """Write a tiny encoder of transformers without a pooling; return the model.

    ``lines``: what its tokenizer is trained on.
    """
    import torch
    import transformers

    torch.manual_seed(3)
    n_vocab = make_tokenizer(folder, tiny.tokenizer, lines)
    settings = {**CONFIG, **tiny.config, "vocab_size": n_vocab, **more}
    config = getattr(transformers, tiny.cls_config or f"{tiny.cls}Config")(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, tiny.cls + tiny.suffix)(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(0.3 * torch.randn_like(p))
            else:
                size = 0.5 if "embed" in name else 1.5 / p.shape[-1] ** 0.5
                p.copy_(size * torch.randn_like(p))
    model.save_pretrained(folder)
    return model


def make_encoder(label, folder, pooling="mean"):
    """Write a tiny encoder; return a function from token ids to hidden states (n, n_embd)."""
    (folder / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    if ENCODERS[label].twin:
        return make_twin(ENCODERS[label], folder)
    import torch

    model = make_model(ENCODERS[label], folder)

    def hidden(ids):
        with torch.no_grad():
            return model(torch.as_tensor(np.asarray(ids))[None]).last_hidden_state[0].numpy()

    return hidden


def make_twin(tiny, folder):
    """Write a tiny encoder that transformers lacks; return its function of token ids."""
    n_vocab = make_tokenizer(folder, tiny.tokenizer)
    tensors = tiny.twin.make(np.random.default_rng(3), n_vocab)
    save(folder, tensors)
    config = {**CONFIG, **tiny.config, "vocab_size": n_vocab}
    config["architectures"] = [tiny.cls + tiny.suffix]
    (folder / "config.json").write_text(json.dumps(config))
    return lambda ids: tiny.twin.hidden(tensors, np.asarray(ids))
