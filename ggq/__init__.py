"""ggq: a GGUF converter and inference runtime in pure Python.

Names are imported when first used, so that ``import ggq`` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what checkers and editors see; `_PUBLIC` is what runs
    from ggq.converters import prepasses as prepass
    from ggq.converters.convert import convert
    from ggq.errors import GGQError
    from ggq.runtime.measure.evaluation import evaluate
    from ggq.runtime.model import Model, load

__version__ = "0.1.0"

_PUBLIC = {
    "load": "ggq.runtime.model",
    "Model": "ggq.runtime.model",
    "convert": "ggq.converters.convert",
    "evaluate": "ggq.runtime.measure.evaluation",
    "GGQError": "ggq.errors",
}
__all__ = ["GGQError", "Model", "__version__", "convert", "evaluate", "load", "prepass"]


def __getattr__(name: str) -> Any:
    if name == "prepass":
        return import_module("ggq.converters.prepasses")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ggq' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
