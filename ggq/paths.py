"""Where ggq keeps what it can make or fetch again; knows nothing of what is kept there."""

import os
import sys
from pathlib import Path


def user_cache_dir() -> Path:
    """Return the folder for caches of ggq (``GGQ_CACHE`` overrides the platform's convention)."""
    if override := os.environ.get("GGQ_CACHE"):
        return Path(override)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "ggq"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/ggq"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ggq"
