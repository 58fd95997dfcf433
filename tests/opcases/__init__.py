"""Uses of operations that all back ends must agree on: `Case`; files beside it hold ``CASES``.

Those of the first operations stand in test_ops.py. No tests here.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TOKENS = 23


@dataclass(frozen=True)
class Case:
    """One use of an operation; ``tables``: name -> shape of random float32 tensors.

    ``causal``: whether the model around it is one whose tokens see the past only.
    """

    op: str
    label: str
    forward: Callable[[Any], Any]
    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    causal: bool = True


def found():
    """Return the cases of the files of this folder."""
    modules = (
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    )
    return [case for module in modules for case in module.CASES]
