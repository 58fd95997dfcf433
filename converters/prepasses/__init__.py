"""Passes that alter a conversion before its blocks are made: ``ggq.prepass.GPTQ(damp=0.1)``.

Each is found by its own file, see `base.py`; `qat` prepares a model for training.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for checkers and editors; a pass works without being named here
    from ggq.converters.prepasses import qat as qat
    from ggq.converters.prepasses.awq import AWQ as AWQ
    from ggq.converters.prepasses.distill import Distill as Distill
    from ggq.converters.prepasses.gptq import GPTQ as GPTQ
    from ggq.converters.prepasses.imatrix import Importance as Importance
    from ggq.converters.prepasses.smooth import Smooth as Smooth

_MODULES = ("qat",)


def __dir__() -> list[str]:
    from ggq.converters.prepasses.base import classes

    return sorted([*classes(), *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name.startswith("_"):  # asked by importlib and inspect, of every package
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ggq.converters.prepasses.base import classes, load

    if name not in classes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(classes()[name])
