"""Picture files, opened with limits before anything is decoded: what is wrong is one clear line.

Formats: PNG, JPEG, WebP, BMP, GIF, of one frame each. Pixels come as transformers' image processors
take them: turned as EXIF says, palettes resolved, grey and CMYK made RGB, transparency dropped.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ggq.errors import UsageError, printable, reason
from ggq.extras import how_to_install

__all__ = ["MOST_BYTES", "MOST_PIXELS", "Picture", "open_picture", "read_picture"]

MOST_BYTES = 32 << 20  # of a file
MOST_PIXELS = 64_000_000  # of its picture: 192 MB of RGB
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_KNOWN = "PNG, JPEG, WebP, BMP and GIF can be read"
_ORIENTATION = 0x0112  # EXIF's tag
_SIDEWAYS = (5, 6, 7, 8)  # its values that swap width and height
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_REMEMBERED = 1024  # files known to decode

_sound: OrderedDict[bytes, None] = OrderedDict()
_lock = threading.Lock()  # of the above, and of Python's warnings, which are everybody's


@dataclass(frozen=True)
class Picture:
    """One picture file that can be decoded: its bytes, size in pixels and hash.

    ``width`` and ``height`` are those of the upright picture.
    """

    data: bytes = field(repr=False)
    width: int
    height: int
    digest: bytes

    def rgb(self) -> np.ndarray:
        """Return the pixels, uint8 (height, width, 3)."""
        with _explained("the picture"):
            return _decoded(_opened(self.data))


def read_picture(path: Path) -> Picture:
    """Return the picture of a file; UsageError in one line names the file and what is wrong."""
    name = printable(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{name}: has more than {MOST_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {reason(error)}") from None
    return open_picture(data, name)


def open_picture(data: bytes, where: str) -> Picture:
    """Return the picture of a file's bytes; UsageError says what is wrong at ``where``.

    Bytes, format, frames and pixels are checked before it is decoded, once for each file.
    """
    if find_spec("PIL") is None:
        raise UsageError(f"pictures need Pillow: {how_to_install('vision')}")
    if not data:
        raise UsageError(f"{where}: is empty")
    if len(data) > MOST_BYTES:
        raise UsageError(f"{where}: has more than {MOST_BYTES >> 20} MiB")
    digest = blake2b(data, digest_size=32).digest()
    with _explained(where):
        image = _opened(data)
        width, height = image.size
        if width * height > MOST_PIXELS:
            most = MOST_PIXELS // 1_000_000
            raise UsageError(f"{where}: has {width} x {height} pixels, {most} million at most")
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise UsageError(f"{where}: is animated, {frames} frames: send one of them")
        if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
            width, height = height, width
        if not _is_sound(digest):
            _decoded(image)
            _remember(digest)
    return Picture(data, width, height, digest)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Make whatever Pillow raises over a stranger's file one line."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UsageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = MOST_PIXELS // 1_000_000
        raise UsageError(f"{where}: has too many pixels, {most} million at most") from None
    except UnidentifiedImageError:
        raise UsageError(f"{where}: is no picture: {_KNOWN}") from None
    except MemoryError:
        raise UsageError(f"{where}: there is no memory to decode it") from None
    except Exception as error:
        what = printable(str(error) or type(error).__name__, 100)
        raise UsageError(f"{where}: is damaged or cut off: {what}") from None


def _opened(data: bytes) -> Any:
    """Return Pillow's picture, of which no more than the head is read."""
    from PIL import Image

    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=_FORMATS)


def _decoded(image: Any) -> np.ndarray:
    """Return the upright pixels, uint8 (height, width, 3)."""
    from PIL import ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:  # 16 bits: Pillow would cut them off at 255
        grey = np.asarray(image).astype(np.int64)
        return np.repeat((grey.clip(0, 65535) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _is_sound(digest: bytes) -> bool:
    with _lock:
        return digest in _sound


def _remember(digest: bytes) -> None:
    with _lock:
        _sound[digest] = None
        while len(_sound) > _REMEMBERED:
            _sound.popitem(last=False)
