"""Logits of text with pictures: those of transformers, for each family, with one and with two.

What a picture is made into is transformers' input, too: pixels are test_pictures_pixels.py's.
"""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("transformers")
pytest.importorskip("torch")

from picturemaker import picture_bytes
from safetensors.numpy import load_file

import ggq
from ggq.converters.conversion import Options
from ggq.runtime.pictures.families import family_of
from ggq.runtime.pictures.opening import open_picture
from ggq.runtime.pictures.plans import pixels

torch = pytest.importorskip("torch")
tinyeyes = pytest.importorskip("tinyeyes")
from_vision = pytest.importorskip("ggq.converters.projector").from_vision

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3  # of the logits' range
TEXT = [9, 12, 30, 17, 22]
WORD, MARK = 7, 5  # what stands for a family's own text; transformers' token of pictures
SIZES = [(64, 48), (52, 90)]
LFM2 = {"intermediate_size": 300, "block_multiple_of": 32, "block_auto_adjust_ff_dim": True}
TEXTS = {  # what text alone is converted of
    "lfm2-vl": LFM2,
    "mistral3": {"sliding_window": None},
    # a window that holds a picture, as in the published models
    "gemma4": {"use_bidirectional_attention": "vision", "sliding_window": 512},
}
FAMILIES = [replace(t, text=t.text | TEXTS.get(t.label, {})) for t in tinyeyes.EYES]
WIDE = {"gemma4": {"position_embedding_size": 128}}
FAMILIES = [replace(t, vision=t.vision | WIDE.get(t.label, {})) for t in FAMILIES]
FAMILIES = [replace(t, remade=None) if t.label == "internvl" else t for t in FAMILIES]


@pytest.fixture(params=FAMILIES, ids=lambda tiny: tiny.label)
def pair(request, tmp_path, monkeypatch):
    """Return a tiny family, a model of it with eyes, and transformers' own."""
    from transformers import PreTrainedModel

    kept, save = [], PreTrainedModel.save_pretrained
    noted = lambda self, *given: (kept.append(self), save(self, *given))  # noqa: E731
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", noted)
    tinyeyes.make_eyes(request.param, tmp_path)
    kept[0].config.image_token_id = MARK
    names = load_file(next(tmp_path.glob("*.safetensors")))
    if not any(name.endswith("lm_head.weight") for name in names):  # as published
        kept[0].lm_head.weight = kept[0].get_input_embeddings().weight
    (path,) = ggq.convert(tmp_path, tmp_path / "model.gguf", "F32")
    with contextlib.ExitStack() as stack:
        made = from_vision(tmp_path, "F32", Options(), stack)
        made.out = tmp_path / "mmproj-model.gguf"
        made.run()
    with ggq.load(path, threads=1, cache_type="f32", n_ctx=2048) as model:
        yield request.param, model, kept[0]


def test_logits_are_those_of_transformers(pair):
    tiny, model, theirs = pair
    assert model.gallery is not None
    for n in (1, 2):
        mine, given = prompt(model, tiny, n)
        with torch.no_grad():
            want = theirs(**given).logits[0].numpy()
        got = model.logits(mine)
        assert got.shape == want.shape
        error = np.abs(got - want).max() / np.ptp(want)
        assert error <= TOLERANCE, (tiny.label, n)


def prompt(model, tiny, n):
    """Return a prompt's ids, and what transformers is given of the same."""
    mine, views = list(TEXT), []
    sight, family = model.gallery.eyes.sight, family_of(tiny.projector)
    for i in range(n):
        picture = open_picture(picture_bytes(*SIZES[i], seed=i), "x")
        plan = family.plan(sight, picture.height, picture.width)
        views += pixels(picture.rgb(), plan, family, sight)
        for piece in model.gallery.show(picture).pieces:
            mine += [WORD] if isinstance(piece, str) else piece.ids.tolist()
        mine += TEXT
    kinds = torch.tensor([[int(i < 0) for i in mine]])
    given = {"input_ids": torch.tensor([[MARK if i < 0 else i for i in mine]])}
    given |= dict.fromkeys(("mm_token_type_ids", "token_type_ids"), kinds)
    each = [tiny.inputs(view) for view in views]
    axis = 1 if tiny.projector == "idefics3" else 0
    return mine, given | {name: joined(each, name, axis) for name in each[0]}


def joined(each, name, axis):
    """Return the pictures' inputs of a name as one, padded at their ends where sizes differ."""
    arrays, nowhere = [one[name] for one in each], -1 if name == "image_position_ids" else 0
    most = np.max([a.shape for a in arrays], axis=0)
    grown = []
    for a in arrays:
        width = [(0, 0 if i == axis else int(most[i] - n)) for i, n in enumerate(a.shape)]
        grown.append(np.pad(a, width, constant_values=nowhere))
    return torch.as_tensor(np.concatenate(grown, axis))
