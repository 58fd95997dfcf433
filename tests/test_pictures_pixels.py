"""What families make of pictures: the same pixels and texts as transformers' processors."""

from types import SimpleNamespace

import numpy as np
import pytest

from ggq.runtime.pictures.families import family_of
from ggq.runtime.pictures.plans import View, pixels

pytest.importorskip("PIL")

CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SIZES = [(64, 64), (37, 90), (301, 117), (200, 640), (40, 33)]


def sight(patch, merge, image_size=0, moments=HALF, **more):
    wanted = dict.fromkeys(("min_pixels", "max_pixels", "longest_edge", "min_tiles", "max_tiles"))
    mean, std = moments
    return SimpleNamespace(
        patch=patch, merge=merge, multiple=patch * merge, breaks=False, image_size=image_size,
        mean=mean, std=std,
        **(wanted | more),
    )  # fmt: skip


def made(projector, given, rgb):
    family = family_of(projector)
    return pixels(rgb, family.plan(given, *rgb.shape[:2]), family, given)


def picture(height, width):
    rng = np.random.default_rng(height * width)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    smooth = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    return (smooth * 0.8 + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)


def processor(model, kind, **settings):
    name = f"transformers.models.{model}.image_processing_pil_{model}"
    return getattr(pytest.importorskip(name), kind)(**settings)


def unpatched(rows, grid, patch, merge=1):
    """Return the planes of which Qwen's processor made these rows: blocks of merge x merge."""
    high, wide = (n // merge for n in grid)
    rows = rows.reshape(high, wide, merge, merge, 3, -1, patch, patch)[..., 0, :, :]
    return rows.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, grid[0] * patch, grid[1] * patch)


def theirs_gemma3(rgb):
    size = {"height": 56, "width": 56}
    found = processor("gemma3", "Gemma3ImageProcessorPil", size=size)(rgb)
    return sight(14, 4, 56), [np.asarray(v) for v in found["pixel_values"]]


def theirs_qwen(rgb):
    given = sight(14, 2, moments=CLIP, min_pixels=56 * 56, max_pixels=28 * 28 * 20)
    size = {"shortest_edge": given.min_pixels, "longest_edge": given.max_pixels}
    found = processor("qwen2_vl", "Qwen2VLImageProcessorPil", size=size)(rgb)
    grid = np.asarray(found["image_grid_thw"])[0, 1:]
    return given, [unpatched(np.asarray(found["pixel_values"]), grid, 14, 2)]


def theirs_idefics3(rgb):
    made = processor(
        "idefics3",
        "Idefics3ImageProcessorPil",
        size={"longest_edge": 128},
        max_image_size={"longest_edge": 32},
    )
    found = made([[rgb]])
    return sight(8, 2, 32, longest_edge=128), list(np.asarray(found["pixel_values"])[0])


def theirs_pixtral(rgb):
    made = processor("pixtral", "PixtralImageProcessorPil", size={"longest_edge": 160})
    found = made(rgb, patch_size={"height": 16, "width": 16})
    return sight(8, 2, 160, CLIP), [np.asarray(v) for v in found["pixel_values"]]


def theirs_internvl(rgb):
    size = {"height": 28, "width": 28}
    made = processor("got_ocr2", "GotOcr2ImageProcessorPil", size=size, crop_to_patches=True)
    found = made(rgb)
    return sight(14, 2, 28, CLIP), [np.asarray(v) for v in found["pixel_values"]]


def theirs_gemma4(rgb):
    made = processor("gemma4", "Gemma4ImageProcessorPil", max_soft_tokens=70, patch_size=8)
    found = made(rgb)
    places = np.asarray(found["image_position_ids"])[0]
    rows = np.asarray(found["pixel_values"])[0][places[:, 0] >= 0]
    wide, high = places.max(axis=0) + 1
    planes = rows.reshape(high, wide, 8, 8, 3).transpose(4, 0, 2, 1, 3)
    given = sight(8, 3, moments=((0, 0, 0), (1, 1, 1)), max_pixels=70 * 24 * 24)
    return given, [planes.reshape(3, high * 8, wide * 8)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("projector", "theirs"),
    [
        ("gemma3", theirs_gemma3),
        ("qwen2vl_merger", theirs_qwen),
        ("idefics3", theirs_idefics3),
        ("pixtral", theirs_pixtral),
        ("internvl", theirs_internvl),
        ("gemma4v", theirs_gemma4),
    ],
)
def test_pixels_are_those_of_transformers(projector, theirs, size):
    pytest.importorskip("transformers")
    rgb = picture(*size)
    given, wanted = theirs(rgb)
    views = made(projector, given, rgb)
    assert [v.shape for v in views] == [w.shape for w in wanted]
    for view, want in zip(views, wanted, strict=True):
        assert view.dtype == np.float32 and view.flags.c_contiguous
        np.testing.assert_allclose(view, want, atol=1e-5)


@pytest.mark.parametrize("size", [(300, 300), (1400, 900), (60, 1900), (33, 64)])
def test_pixels_of_lfm2_are_those_of_transformers_within_a_level(size):
    pytest.importorskip("torchvision")
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

    rgb, given = picture(*size), sight(16, 2)
    found = Lfm2VlImageProcessor()(rgb.transpose(2, 0, 1), do_pad=True)
    views = made("lfm2", given, rgb)
    shapes = np.asarray(found["spatial_shapes"]).tolist()
    assert [[n // 16 for n in v.shape[1:]] for v in views] == shapes
    for view, (high, wide), rows in zip(views, shapes, found["pixel_values"], strict=True):
        planes = np.asarray(rows)[: high * wide].reshape(high, wide, 16, 16, 3)
        want = planes.transpose(4, 0, 2, 1, 3).reshape(view.shape)
        assert np.abs(view - want).max() <= 1.01 * 2 / 255  # torchvision rounds otherwise


def spelled(plan, tokens):
    return "".join(p if isinstance(p, str) else "<image>" * tokens(*p.size) for p in plan)


@pytest.mark.parametrize("size", SIZES)
def test_the_text_around_idefics3s_tiles_is_transformers(size):
    module = pytest.importorskip("transformers.models.idefics3.processing_idefics3")
    given, n = sight(8, 2, 32, longest_edge=128), 4
    plan = family_of("idefics3").plan(given, *size)
    views = [p for p in plan if isinstance(p, View)]
    rows = len({v.box[0] for v in views[:-1]})
    columns = (len(views) - 1) // rows if rows else 0
    around = {"fake_image_token": "<fake_token_around_image>", "global_image_tag": "<global-img>"}
    me = SimpleNamespace(**around, image_token="<image>", image_seq_len=n)
    want = module.Idefics3Processor.replace_image_token(
        me, {"rows": [[rows]], "cols": [[columns]]}, 0
    )
    assert spelled(plan, lambda *_: n) == want


@pytest.mark.parametrize(("size", "grid"), [((300, 300), (1, 1)), ((1400, 900), (3, 2))])
def test_the_text_around_lfm2s_tiles_is_transformers(size, grid):
    module = pytest.importorskip("transformers.models.lfm2_vl.processing_lfm2_vl")
    plan = family_of("lfm2").plan(sight(16, 2), *size)
    whole = [p for p in plan if isinstance(p, View)][-1].size
    marks = dict.fromkeys(("image", "image_start", "image_end", "image_thumbnail"))
    names = ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    me = SimpleNamespace(
        **{f"{n}_token": t for n, t in zip(marks, names, strict=True)},
    )
    n_whole = whole[0] * whole[1] // 32**2
    want = module.Lfm2VlProcessor._build_image_tokens(me, *grid, 256, n_whole, True, True)
    assert spelled(plan, lambda high, wide: high * wide // 32**2) == want
