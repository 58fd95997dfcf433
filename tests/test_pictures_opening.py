"""Picture files are opened upright and in RGB, and what is wrong with one is said in one line."""

import io
import struct
import zlib

import numpy as np
import pytest

from ggq.errors import UsageError
from ggq.runtime.pictures import opening
from ggq.runtime.pictures.opening import open_picture, read_picture

Image = pytest.importorskip("PIL.Image")


def saved(image, kind="PNG", **more):
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def colours(height=20, width=30):
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(rgb), rgb


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def claimed(width, height):
    """Return a PNG that says it has so many pixels and holds a few bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100)))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
def test_formats_are_read(kind):
    image, rgb = colours()
    more = {"lossless": True} if kind == "WEBP" else {}
    picture = open_picture(saved(image, kind, **more), "x")
    assert (picture.width, picture.height) == (30, 20)
    if kind in ("PNG", "BMP", "WEBP"):
        np.testing.assert_array_equal(picture.rgb(), rgb)


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_photo_stands_upright(turn):
    image, rgb = colours()
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = {
        2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1], 5: rgb.transpose(1, 0, 2),
        6: rgb.transpose(1, 0, 2)[:, ::-1], 7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: rgb.transpose(1, 0, 2)[::-1],
    }[turn]  # fmt: skip
    picture = open_picture(saved(image, exif=exif), "x")
    assert (picture.height, picture.width) == upright.shape[:2]
    np.testing.assert_array_equal(picture.rgb(), upright)


def test_kinds_of_pixels_become_rgb():
    image, rgb = colours()
    deep = (np.arange(600, dtype=np.uint16) * 109).reshape(20, 30)
    wanted = {
        saved(image.convert("RGBA")): rgb,
        saved(image.convert("L")): np.repeat(np.asarray(image.convert("L"))[..., None], 3, 2),
        saved(image.quantize(8)): np.asarray(image.quantize(8).convert("RGB")),
        saved(Image.fromarray(deep)): np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, 2),
    }
    for data, want in wanted.items():
        np.testing.assert_array_equal(open_picture(data, "x").rgb(), want)
    cmyk = open_picture(saved(image.convert("CMYK"), "JPEG"), "x").rgb()
    assert cmyk.shape == (20, 30, 3)


def test_what_is_wrong_is_one_line(monkeypatch):
    image, _ = colours()
    whole, moving = (
        saved(image),
        saved(image, "GIF", save_all=True, append_images=[image.rotate(9)]),
    )
    cases = {
        b"": "is empty",
        b"<svg/>": "is no picture: PNG, JPEG",
        saved(image, "TIFF"): "is no picture",
        whole[:-40]: "is damaged or cut off",
        saved(image, "JPEG")[:-100]: "is damaged or cut off",
        moving: "is animated, 2 frames",
        claimed(20_000, 5_000): "pixels, 64 million at most",
        claimed(60_000, 60_000): "has too many pixels, 64 million at most",
        claimed(0, 7): "is no picture",
    }
    for data, problem in cases.items():
        with pytest.raises(UsageError, match=problem) as told:
            open_picture(data, "messages[0]")
        assert str(told.value).startswith("messages[0]: ") and "\n" not in str(told.value)
    monkeypatch.setattr(opening, "MOST_BYTES", 100)
    with pytest.raises(UsageError, match="has more than"):
        open_picture(whole, "x")


def test_files_are_named(tmp_path):
    image, _ = colours()
    path = tmp_path / "a.png"
    with pytest.raises(UsageError, match=r"a\.png: No such file"):
        read_picture(path)
    with pytest.raises(UsageError, match=r"directory"):
        read_picture(tmp_path)
    path.write_bytes(saved(image))
    assert read_picture(path).digest == open_picture(path.read_bytes(), "x").digest


def test_without_pillow_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pictures need Pillow: .*vision"):
        open_picture(b"x", "x")
