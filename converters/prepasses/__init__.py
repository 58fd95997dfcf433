"""Passes that alter a conversion before its blocks are made: ``ggq.prepass.GPTQ(damp=0.1)``."""

from importlib import import_module
from typing import Any

_CLASSES = {
    "AWQ": "awq",
    "Distill": "distill",
    "GPTQ": "gptq",
    "Importance": "imatrix",
    "Smooth": "smooth",
}
_MODULES = ("qat",)
__all__ = ["AWQ", "GPTQ", "Distill", "Importance", "Smooth", "qat"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
