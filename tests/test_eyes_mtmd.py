"""Pictures beside llama.cpp's mtmd, on the same two files: rows, and logits of the text around.

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
from test_eyes_text import FAMILIES, TEXT

import ggq
from ggq.gguf import GGUFWriter, open_gguf
from ggq.runtime.pictures.opening import open_picture

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from mtmd import Seeing

sys.path.pop()

pytestmark = pytest.mark.slow

# Of the largest value, of the logits' range. llama.cpp looks GELU up in a table of halves, which
# alone makes 5e-4 in rows.
ROWS, LOGITS = 1e-3, {"qwen3.5": 2e-3, "idefics3": 2e-3, "smolvlm": 2e-3}
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


def test_rows_and_logits_are_those_of_mtmd(files):
    from PIL import Image

    tiny, text, projector = files
    rgb, file = picture_of(tiny), io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    theirs = Seeing(str(text), str(projector), 1, 2048, exact=True)
    with ggq.load(text, mmproj=projector, threads=1, cache_type="f32", n_ctx=2048) as model:
        shown = model.gallery.show(open_picture(file.getvalue(), "x"))
        blocks = [piece for piece in shown.pieces if not isinstance(piece, str)]
        ids, want, view = list(TEXT), [theirs.rows_after(TEXT)], 0
        with theirs.chunks(rgb) as chunks:
            for is_picture, chunk in chunks:
                if is_picture:
                    mine = [b for b in blocks if b.view == view]
                    rows = np.concatenate([model.gallery.rows(b) for b in mine], axis=1)
                    rows = np.concatenate(list(rows), axis=1) * model.gallery._scale
                    assert distance(rows, theirs.rows(chunk)) <= ROWS, tiny.label
                    ids += [i for b in mine for i in b.ids.tolist()]
                    theirs.look(chunk)
                    view += 1
                elif said := [i for i in theirs.ids(chunk) if i >= 0]:  # marks it has no token for
                    ids += said
                    want.append(theirs.rows_after(said))
        ids += TEXT
        want = np.concatenate([*want, theirs.rows_after(TEXT)])
        got = model.logits(ids)[np.array(ids) >= 0]
    theirs.close()
    assert view == max(b.view for b in blocks) + 1
    assert np.abs(got - want).max() / np.ptp(want) <= LOGITS.get(tiny.label, 1e-3)
