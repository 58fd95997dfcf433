"""All tiny random models of `tiny/`, and how transformers makes them; no tests here."""

import importlib
import json
import pkgutil

import numpy as np
import tiny as tiny_models
from hfmaker import make_bpe, save
from tiny.base import BASE

TINY = [
    model
    for module in pkgutil.iter_modules(tiny_models.__path__)
    if module.name != "base"
    for model in importlib.import_module(f"tiny.{module.name}").MODELS
]


def make_tiny(tiny, folder):
    """Write a tiny model and a tokenizer as an HF folder; return token ids and their logits."""
    n_vocab = make_bpe(folder)
    if tiny.twin:
        return make_twin(tiny, folder, n_vocab)
    import torch
    import transformers

    torch.manual_seed(7)
    settings = {**BASE, **tiny.config, "vocab_size": n_vocab}
    if "vision_config" in settings:
        vision = settings.pop("vision_config")
        settings = {"vision_config": vision, "text_config": settings, "tie_word_embeddings": False}
    config = getattr(transformers, tiny.cls_config or f"{tiny.cls}Config")(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, tiny.cls + tiny.suffix)(config).float().eval()
    ids = np.random.default_rng(3).integers(3, n_vocab, tiny.n_tokens)
    with torch.no_grad():
        spread(torch, model, tiny.gain)
        if tiny.prepare:
            tiny.prepare(model)
        seen = alibi_instead(torch, tiny, config) if tiny.alibi else {}
        want = model(torch.as_tensor(ids)[None], **seen).logits[0].numpy()
    model.save_pretrained(folder)
    if tiny.remade:
        remake(tiny, folder)
    return ids, want


def make_twin(tiny, folder, n_vocab):
    """Write a tiny model that transformers lacks; return token ids and their logits."""
    config = {k: v for k, v in {**BASE, **tiny.config}.items() if v is not None}
    tensors = tiny.twin.make(np.random.default_rng(7), n_vocab, config)
    save(folder, tensors)
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": n_vocab}))
    ids = np.random.default_rng(3).integers(3, n_vocab, tiny.n_tokens)
    return ids, tiny.twin.logits(tensors, ids, config)


def alibi_instead(torch, tiny, config):
    """Return the inputs that put ALiBi (arXiv 2108.12409) in the place of rotary positions."""
    n, heads = tiny.n_tokens, config.num_attention_heads
    assert heads & (heads - 1) == 0  # other counts: tests/tiny/bloom.py
    slopes = 2.0 ** (-tiny.alibi * torch.arange(1, heads + 1) / heads)
    away = torch.arange(n)[:, None] - torch.arange(n)
    mask = torch.where(away < 0, -1e30, -slopes[:, None, None] * away)
    return {"attention_mask": mask[None], "position_ids": torch.zeros(1, n, dtype=torch.long)}


def remake(tiny, folder):
    """Write the folder again as one of a class that transformers does not have."""
    from safetensors.numpy import load_file

    (shard,) = folder.glob("*.safetensors")
    config = json.loads((folder / "config.json").read_text())
    tensors, config = tiny.remade(load_file(shard), config)
    save(folder, tensors)
    (folder / "config.json").write_text(json.dumps(config))


def spread(torch, model, gain=1.5):
    """Give weights a size at which scores matter, and biases and norms values of their own."""
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.add_(0.3 * torch.randn_like(p))
        elif "embed" in name:
            p.copy_(0.4 * torch.randn_like(p))
        else:
            p.copy_(gain * torch.randn_like(p) / p.shape[-1] ** 0.5)
