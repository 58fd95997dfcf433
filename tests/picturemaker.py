"""Pictures and eyes for tests: small files, and a projector that needs no weights."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq.runtime.pictures.gallery import Gallery
from ggq.runtime.pictures.opening import open_picture


def picture_bytes(height, width=None, seed=0, kind="PNG"):
    """Return a picture file of random colours."""
    Image = pytest.importorskip("PIL.Image", reason="the extra vision is not installed")
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width or height, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, kind)
    return out.getvalue()


class Eyes:
    """A projector whose rows are drawn from what it is shown: a token for 8 x 8 pixels."""

    identity = "drawn"

    def __init__(self, n_text, deepstack=0, projector="qwen2vl_merger"):
        self.n_text, self.looked = n_text, 0
        limits = dict.fromkeys(("longest_edge", "min_tiles", "max_tiles"))
        self.sight = SimpleNamespace(
            projector=projector, deepstack=tuple(range(deepstack)), patch=4, merge=2, multiple=8,
            image_size=32, breaks=False, mean=(0.5,) * 3, std=(0.5,) * 3,
            min_pixels=64, max_pixels=64 * 64,
            grid=lambda high, wide: (high // 8, wide // 8),
            tokens=lambda high, wide: high * wide // 64, **limits,
        )  # fmt: skip

    def encode(self, pixels, progress=None):
        self.looked += 1
        if progress is not None:
            progress(1.0)
        _, high, wide = pixels.shape
        n, parts = high * wide // 64, 1 + len(self.sight.deepstack)
        rng = np.random.default_rng(int(1e6 * abs(float(pixels.sum()))))
        rows = rng.standard_normal((parts, n, self.n_text)).astype(np.float32)
        return SimpleNamespace(rows=rows[0], deepstack=rows[1:], grid=(high // 8, wide // 8))

    def close(self):
        pass


def shown(gallery, tokens):
    """Return a picture of ``tokens`` rows and one column more, shown in a gallery."""
    data = picture_bytes(8 * tokens, 8 * tokens + 8, seed=tokens)
    return gallery.show(open_picture(data, "a test's picture"))


SEEING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{% if p.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny(folder, **more):
    """Return a tiny model whose template has a place for pictures."""
    keys, path = {"tokenizer.chat_template": SEEING}, folder / "t.gguf"
    if not path.exists():
        make_tiny_llama(path, n_ctx=1024, vocab="bpe", metadata=keys)
    return ggq.load(path, threads=1, **more)


def given_eyes(model):
    """Give a model drawn eyes; return it."""
    model.gallery = Gallery(Eyes(model.hparams.n_embd), model.hparams.n_embd)
    model.gallery.n_ctx = model.n_ctx
    model.hparams = replace(model.hparams, pictures=True)
    return model
