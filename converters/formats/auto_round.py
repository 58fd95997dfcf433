"""AutoRound checkpoints: its settings around the layouts of GPTQ or AWQ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.converters.formats import awq, gptq
from ggq.converters.formats.base import Format, Pieces
from ggq.errors import ModelError, printable

__all__ = ["FORMAT"]

LAYOUTS: dict[str, Format] = {
    "auto_round:auto_gptq": gptq.FORMAT,
    "auto_round:auto_awq": awq.FORMAT,
}


class AutoRound:
    """Modules as the ``packing_format`` has them."""

    methods = ("auto-round",)
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        packing = settings.get("packing_format") or "auto_round:auto_gptq"
        layout = LAYOUTS.get(packing) if isinstance(packing, str) else None
        if layout is None:
            raise ModelError(
                f"config.json: AutoRound packing_format {printable(repr(packing))} is not "
                f"supported, only {' and '.join(LAYOUTS)}"
            )
        layout.decode(pieces, {k: settings[k] for k in ("bits", "group_size") if k in settings})


FORMAT = AutoRound()
