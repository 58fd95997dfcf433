"""What only the compiler needs, made when numba first asks what it is.

Kernel modules are imported at every start, and machine code of theirs is mostly at hand: what they
are made of (numba's types, intrinsics and dispatchers) would cost a tenth of a second for nothing.
It knows no intrinsic and no kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from types import FunctionType
from typing import Any

__all__ = ["Deferred", "overload", "register"]

_waiting: list[Callable[[], Any]] = []  # what numba has to be told before it compiles on


class Deferred:
    """Something of numba's by name: ``make()`` returns it. Calls are deferred, too.

    numba reads ``_numba_type_`` of any object that compiled code names. ``py_func`` is the Python
    function that it is made of, as numba's dispatchers have it.
    """

    def __init__(self, name: str, make: Callable[[], Any], function: Any = None) -> None:
        self._name, self._make = name, make
        self.py_func: FunctionType | None = function
        self.__doc__ = function and function.__doc__

    @cached_property
    def value(self) -> Any:
        """What stands behind the name."""
        return self._make()

    @cached_property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        value = self.value
        register()
        return cpu_target.typing_context.resolve_value_type(value)

    def __call__(self, *arguments: Any) -> Deferred:
        """Return what calling the value will give; only Python code at an import comes here."""
        kept = tuple(a if isinstance(a, (Deferred, str)) else _frozen(a) for a in arguments)
        name = f"{self._name}({', '.join(map(_described, kept))})"
        return Deferred(name, lambda: self.value(*map(_resolved, kept)))

    def __repr__(self) -> str:
        return self._name


def register() -> None:
    """Tell numba of all overloads and intrinsics that it has not heard of."""
    from numba.core.registry import cpu_target

    while _waiting:
        _waiting.pop(0)()
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def overload(function: Callable, **options: Any) -> Callable[[Callable], Callable]:
    """Give ``function``, a name without a body, one per argument types: ``numba.overload``."""

    def decorate(chooser: Callable) -> Callable:
        def told() -> None:
            from numba.extending import overload

            overload(function, **options)(chooser)

        _waiting.append(told)
        return chooser

    return decorate


def _frozen(value: Any) -> Any:
    """Return an argument that nobody else changes: arrays as they are, else numbers in a tuple."""
    return tuple(value) if isinstance(value, (range, list)) else value


def _resolved(value: Any) -> Any:
    return value.value if isinstance(value, Deferred) else value


def _described(value: Any) -> str:
    """Return what stands for an argument in a name: an array's bytes by their hash."""
    if hasattr(value, "tobytes"):
        return hashlib.sha256(value.tobytes()).hexdigest()[:16]
    return repr(value)
