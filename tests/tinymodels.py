"""All tiny random models of `tiny/`, and how transformers makes them; no tests here."""

import importlib
import pkgutil

import numpy as np
import tiny as tiny_models
from hfmaker import make_bpe
from tiny.base import BASE

TINY = [
    model
    for module in pkgutil.iter_modules(tiny_models.__path__)
    if module.name != "base"
    for model in importlib.import_module(f"tiny.{module.name}").MODELS
]


def make_tiny(tiny, folder):
    """Write a tiny model and a tokenizer as an HF folder; return token ids and their logits."""
    import torch
    import transformers

    torch.manual_seed(7)
    n_vocab = make_bpe(folder)
    settings = {**BASE, **tiny.config, "vocab_size": n_vocab}
    if "vision_config" in settings:
        vision = settings.pop("vision_config")
        settings = {"vision_config": vision, "text_config": settings, "tie_word_embeddings": False}
    config = getattr(transformers, tiny.cls_config or f"{tiny.cls}Config")(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, tiny.cls + tiny.suffix)(config).float().eval()
    ids = np.random.default_rng(3).integers(3, n_vocab, tiny.n_tokens)
    with torch.no_grad():
        spread(torch, model)
        want = model(torch.as_tensor(ids)[None]).logits[0].numpy()
    model.save_pretrained(folder)
    return ids, want


def spread(torch, model):
    """Give weights a size at which scores matter, and biases and norms values of their own."""
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.add_(0.3 * torch.randn_like(p))
        elif "embed" in name:
            p.copy_(0.4 * torch.randn_like(p))
        else:
            p.copy_(1.5 * torch.randn_like(p) / p.shape[-1] ** 0.5)
