"""Properties that are made once for each instance, whichever of several threads asks first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["once"]

_T = TypeVar("_T")


class once(Generic[_T]):
    """`functools.cached_property` with a lock for each instance: Python 3.12's has none at all.

    The lock is the instance's ``making``, a re-entrant one: such a property may ask for others.
    The value is in the instance's ``__dict__`` from then on, and may be deleted there.
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make, self.__doc__ = make, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> once[_T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...
    def __get__(self, instance: Any, owner: type) -> once[_T] | _T:
        """Return the instance's value; where it has none yet, one thread makes it."""
        if instance is None:
            return self
        with instance.making:
            known = instance.__dict__
            if self._name not in known:
                known[self._name] = self._make(instance)
            value: _T = known[self._name]
            return value
