"""Tiny random encoders of transformers with a WordPiece tokenizer; no tests here."""

import json

import numpy as np

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
CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
ENCODERS = {"bert": ("Bert", {}), "nomic-bert": ("NomicBert", {"rope_theta": 1000.0})}


def make_tokenizer(folder):
    """Write a WordPiece tokenizer as BERT's; return the number of tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES, *WORDS, "##s", "##ed"]
    vocab = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tok.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tok.save(str(folder / "tokenizer.json"))
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    config = {f"{k}_token": v for k, v in names.items()} | {"tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocab)


def make_encoder(arch, folder, pooling="mean"):
    """Write a tiny encoder; return a function from token ids to hidden states (n, n_embd)."""
    import torch
    import transformers

    torch.manual_seed(3)
    cls, more = ENCODERS[arch]
    n_vocab = make_tokenizer(folder)
    config = getattr(transformers, f"{cls}Config")(**CONFIG, **more, vocab_size=n_vocab)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{cls}Model")(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(0.3 * torch.randn_like(p))
            else:
                size = 0.5 if "embeddings" in name else 1.5 / p.shape[-1] ** 0.5
                p.copy_(size * torch.randn_like(p))
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))

    def hidden(ids):
        with torch.no_grad():
            return model(torch.as_tensor(np.asarray(ids))[None]).last_hidden_state[0].numpy()

    return hidden
