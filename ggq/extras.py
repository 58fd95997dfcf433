"""How an extra is added to this ggq: what to type differs by how it was installed."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["how_to_install"]


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra, such as ``serve``."""
    what = shlex.quote(_requirement(extra))
    if (Path(sys.prefix) / "uv-receipt.toml").exists():
        return f"uv tool install --force {what}"
    if (Path(sys.prefix) / "pipx_metadata.json").exists():
        return f"pipx install --force {what}"
    return f"pip install {what}"


def _requirement(extra: str) -> str:
    """Return what an installer is given: the checkout or file that ggq is from, else its name."""
    from importlib import metadata  # a tenth of a second with the next: rarely needed
    from urllib.request import url2pathname

    here = Path(__file__).parent.parent
    if (here / "pyproject.toml").exists():
        return f"{here}[{extra}]"
    try:
        told = metadata.distribution("ggq").read_text("direct_url.json")
        found = json.loads(told) if told else {}
    except (metadata.PackageNotFoundError, OSError, ValueError):
        found = {}
    url = str(found.get("url") or "")
    if vcs := found.get("vcs_info"):
        return f"ggq[{extra}] @ {vcs.get('vcs')}+{url}"
    if url.startswith("file:"):
        return f"{url2pathname(urlsplit(url).path)}[{extra}]"
    return f"ggq[{extra}] @ {url}" if url else f"ggq[{extra}]"
