"""A model's projector file: which one it is, and the gallery that it opens.

llama.cpp's files lie beside the model and are called mmproj-NAME.gguf.
"""

from __future__ import annotations

import os
from pathlib import Path

from ggq.errors import GGQError, ModelError, printable
from ggq.gguf import open_gguf
from ggq.models import vision
from ggq.models.hparams import HParams
from ggq.runtime.pictures.gallery import Gallery

__all__ = ["beside", "is_projector", "open_gallery"]

PREFIX = "mmproj"
_WIDTH = "clip.vision.projection_dim"


def is_projector(path: Path) -> bool:
    """Tell by its name whether a file is a projector, not a model."""
    return path.name.lower().startswith(PREFIX)


def beside(path: str | os.PathLike[str], n_embd: int, arch: str) -> Path | None:
    """Return the projector in a model's folder of its family, whose rows are as wide as its own.

    Of several the first by name; None where there is none.
    """
    folder = Path(path).parent
    for found in sorted(p for p in folder.glob("*.gguf") if is_projector(p)):
        try:
            with open_gguf(found) as gguf:
                projector = vision.of_file(gguf).projector
                if gguf.metadata.get(_WIDTH) == n_embd and vision.suits(projector, arch):
                    return found
        except GGQError:  # whoever names it is told what is wrong with it
            continue
    return None


def _check_family(path: str | os.PathLike[str], projector: str, arch: str) -> None:
    """Raise ModelError where a projector is one of other models, however wide its rows are."""
    if vision.suits(projector, arch):
        return
    texts = vision.get(projector).texts
    whose = f"one of {', '.join(texts)}" if texts else "of another family"
    what = f"{printable(path)}: a {projector} projector is {whose}, not of {arch}"
    raise ModelError(f"{what}: its rows mean nothing to the model")


def open_gallery(path: str | os.PathLike[str], hp: HParams, threads: int | None) -> Gallery:
    """Return the pictures of a model with this projector; GGQError where they do not fit."""
    from ggq.runtime.engine.eyes import Eyes

    eyes = Eyes.load(path, n_threads=threads)
    try:
        _check_family(path, eyes.sight.projector, hp.arch)
        return Gallery(eyes, hp.n_embd, hp.deepstack, hp.embedding_scale)
    except BaseException:
        eyes.close()
        raise
