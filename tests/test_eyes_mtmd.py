"""Pictures beside llama.cpp's mtmd, on the same two files: rows, and logits of the text around.

llama.cpp rounds to halves in places (halves.py). So ours are held to the exact twin, its rows to
the twin with its halves, and the text's logits to each other on equal rows, too.
Pictures have the size or the one colour that scaling leaves alone: llama.cpp scales otherwise than
transformers (docs/seeing.md), to which test_pictures_pixels.py holds ours.
"""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("PIL")
pytest.importorskip("transformers")
pytest.importorskip("torch")

from floats import distance
from halves import Exact, Halved
from test_eyes_text import FAMILIES, TEXT

import ggq
from ggq.gguf import GGUFWriter, open_gguf
from ggq.runtime.pictures.opening import open_picture
from ggq.runtime.pictures.plans import pixels

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from mtmd import Seeing

sys.path.pop()

pytestmark = pytest.mark.slow

# Of the largest value; of the logits' range. A half's last bit falls either way where float32 and
# float64 differ: 2.4e-4 of Pixtral's rows. What halves in the rows become in the logits is the text
# model's: 1.5e-3 of Qwen3.5's.
ROWS, TWIN, HALVES = 1e-3, 1e-5, 3e-4
LOGITS, SAME_ROWS = {"qwen3.5": 2e-3}, 5e-4
LEFT_OUT = {"gemma4"}  # llama.cpp ends the process in an assertion at a tower this small
SIZES = {"lfm2-vl": (256, 256)}
# llama.cpp scales Gemma 3's scores by the heads' width.
MORE = {"gemma3": {"query_pre_attn_scalar": 32, "num_hidden_layers": 7}}
KNOWN = [replace(t, text=t.text | MORE.get(t.label, {})) for t in FAMILIES]
KNOWN = [t for t in KNOWN if t.peer is not None and t.label not in LEFT_OUT]
BREAK = "v.token_embd.img_break"


@pytest.fixture(params=KNOWN, ids=lambda tiny: tiny.label)
def files(request, tmp_path):
    """Return a tiny family, its text model and its projector."""
    from tinyeyes import make_eyes

    tiny = request.param
    make_eyes(tiny, tmp_path)
    eyes = tmp_path / "eyes.gguf"
    (text,) = ggq.convert(tmp_path, tmp_path / "model.gguf", "F32", mmproj=eyes, mmproj_type="F32")
    return tiny, text, with_break(eyes) if tiny.projector == "pixtral" else eyes


def with_break(path):
    """Return a projector file with a row to stand between rows of tokens: mtmd wants one."""
    out = path.with_name("with-break.gguf")
    with open_gguf(path) as file:
        writer, width = GGUFWriter(out, True, None), file.metadata["clip.vision.projection_dim"]
        writer.copy_metadata(file.metadata, frozenset())
        row = np.random.default_rng(1).standard_normal((1, width)).astype(np.float32)
        for tensor in file.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, tensor.type_id)
        writer.add_tensor(BREAK, (width,), 0)
        writer.begin()
        for name in file.tensors:
            writer.write(name, np.asarray(file.data(name)).view(np.uint8))
        writer.write(BREAK, row.view(np.uint8))
        writer.finish()
    return out


def picture_of(tiny):
    """Return a picture, uint8 (height, width, 3)."""
    if tiny.projector == "idefics3":  # is scaled, and cut
        return np.full((128, 128, 3), (200, 90, 30), np.uint8)
    size = SIZES.get(tiny.label, tiny.size)
    return np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)


def blocks_of(gallery, rgb):
    """Return the blocks of a picture's tokens and its views' pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    picture = open_picture(file.getvalue(), "x")
    blocks = [p for p in gallery.show(picture).pieces if not isinstance(p, str)]
    sight, family = gallery.eyes.sight, gallery.family
    return blocks, pixels(rgb, family.plan(sight, *rgb.shape[:2]), family, sight)


def put(gallery, blocks, rows):
    """Have a view's blocks stand for ``rows``, (tokens, parts * width)."""
    parts = np.split(rows, rows.shape[1] // gallery.eyes.n_text, axis=1)
    made = np.stack(parts).astype(np.float32) / np.float32(gallery._scale)
    for b in blocks:
        gallery._rows[int(b.ids[0])] = made[:, b.first : b.first + len(b)]


def of_the_range(got, want):
    return np.abs(got - want).max() / np.ptp(want)


def test_rows_and_logits_are_those_of_mtmd(files):
    tiny, text, projector = files
    rgb, seen = picture_of(tiny), []
    theirs = Seeing(str(text), str(projector), 1, 2048, exact=True)
    with ggq.load(text, mmproj=projector, threads=1, cache_type="f32", n_ctx=2048) as model:
        gallery = model.gallery
        blocks, views = blocks_of(gallery, rgb)
        ids, want = list(TEXT), [theirs.rows_after(TEXT)]
        with theirs.chunks(rgb) as chunks:
            for is_picture, chunk in chunks:
                if is_picture:
                    mine = [b for b in blocks if b.view == len(seen)]
                    ids += [i for b in mine for i in b.ids.tolist()]
                    seen.append((mine, theirs.rows(chunk)))
                    theirs.look(chunk)
                elif said := [i for i in theirs.ids(chunk) if i >= 0]:  # marks it has no token for
                    ids += said
                    want.append(theirs.rows_after(said))
        ids += TEXT
        want = np.concatenate([*want, theirs.rows_after(TEXT)])
        theirs.close()
        asked = np.array(ids) >= 0
        assert of_the_range(model.logits(ids)[asked], want) <= LOGITS.get(tiny.label, 1e-3)
        assert len(seen) == len(views)
        weights = gallery.eyes.retina._weights
        for view, (mine, their) in zip(views, seen, strict=True):
            rows = np.concatenate([gallery.rows(b) for b in mine], axis=1)
            rows = np.concatenate(list(rows), axis=1) * gallery._scale
            assert distance(rows, Exact(weights).rows(gallery.eyes, view)) <= TWIN
            assert distance(their, Halved(weights).rows(gallery.eyes, view)) <= HALVES
            assert distance(rows, their) <= ROWS
            put(gallery, mine, their)
        assert of_the_range(model.logits(ids)[asked], want) <= SAME_ROWS
