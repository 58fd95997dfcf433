"""What guesses an answer's next tokens: every file here that declares ``DRAFTER`` is one way.

The model checks a guess of several tokens in one step, so that right ones cost less; text and
log-probabilities stay as they are without (Leviathan et al. 2023, with exact agreement).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ggq.runtime.generation.drafting.base import Drafter

__all__ = ["drafters"]


@cache
def drafters() -> dict[str, Callable[[], Drafter]]:
    """Return what makes each drafter that needs nothing but the tokens, by its file's name."""
    modules = {i.name: import_module(f"{__name__}.{i.name}") for i in iter_modules(__path__)}
    return {name: m.DRAFTER for name, m in modules.items() if hasattr(m, "DRAFTER")}
