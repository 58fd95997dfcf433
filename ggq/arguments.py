"""What the public Python interface is given, held to what its signatures say, in one place.

It knows types and no meaning: ranges and names are checked where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ggq.errors import UsageError, known_names, printable

__all__ = ["check_fields", "check_settings", "checked"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WORDS: dict[Any, str] = {
    **{int: "a whole number", float: "a number", bool: "True or False", str: "text"},
    **{NoneType: "None", Path: "a path", os.PathLike: "a path", Mapping: "a dictionary"},
    Callable: "a function",
}
_NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def checked(function: _Function) -> _Function:
    """Decorate a public function: an argument of another type than its annotation's is refused.

    UsageError names the argument and what it may be, at the call. A flag (bool) takes 0 and 1,
    too, and numpy's; iterators are read into lists.
    """

    @cache
    def rules() -> dict[str, Any]:  # at the first call: annotations may name what comes later
        hints = get_type_hints(function)
        named = [p.name for p in signature(function).parameters.values() if p.kind in _NAMED]
        return {name: hints.get(name, Any) for name in named}

    @wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        known = rules()
        pairs = zip(known.items(), args, strict=False)
        args = (*(_taken(n, h, value) for (n, h), value in pairs), *args[len(known) :])
        kwargs = {n: _taken(n, known[n], v) if n in known else v for n, v in kwargs.items()}
        return function(*args, **kwargs)

    return check  # type: ignore[return-value]


def check_fields(instance: Any) -> None:
    """Hold a dataclass's values to its annotations, as `checked` does; for ``__post_init__``."""
    kind: Any = type(instance)
    hints = _hints(kind)
    for one in fields(instance):
        if one.init:
            _taken(one.name, hints[one.name], getattr(instance, one.name))


def check_settings(given: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return keywords held to the names and types of ``kind``, a TypedDict; UsageError."""
    hints, taken = _hints(kind), {}
    for name, value in given.items():
        if name not in hints:
            near = known_names(name, hints)
            listed = f"{kind.__module__}.{kind.__name__} lists them"
            how = near if near.startswith("did you mean") else listed
            raise UsageError(f"{printable(name)}: no such option; {how}")
        taken[name] = _taken(name, hints[name], value)
    return taken


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _taken(name: str, hint: Any, value: Any) -> Any:
    """Return ``value``, an iterator as a list; UsageError where ``hint`` does not allow it."""
    if hasattr(value, "__next__") and any(_items(h) for h in _alternatives(hint)):
        value = list(value)
    if not _fits(value, hint):
        given = printable(repr(value), 60)
        raise UsageError(f"{name}: expected {_words(hint)}, not {given}")
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _items(hint: Any) -> Any:
    """Return the type of a list's items, None for what is no list."""
    return get_args(hint)[0] if get_origin(hint) in (Sequence, Iterable, list) else None


def _fits(value: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind is Any:
        return True
    if kind is bool:  # "no" is true
        return (isinstance(value, (bool, int)) and value in (0, 1)) or _is_flag(value)
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if kind in (int, float):
        method = "__index__" if kind is int else "__float__"
        single = not isinstance(value, bool) and not getattr(value, "ndim", 0)
        return single and hasattr(type(value), method)
    if kind is tuple:
        kinds = get_args(hint)
        return (
            isinstance(value, (tuple, list))
            and len(value) == len(kinds)
            and all(map(_fits, value, kinds))
        )
    item = _items(hint)
    if item is None:
        return isinstance(value, kind)
    return _is_list(value) and _all_fit(value, item)


def _is_flag(value: Any) -> bool:
    """Tell whether it is numpy's true or false."""
    return getattr(getattr(value, "dtype", None), "kind", "") == "b" and not value.ndim


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


def _all_fit(values: Any, hint: Any) -> bool:
    dtype = getattr(values, "dtype", None)
    if dtype is not None:  # an array says it once for all
        return values.ndim == 1 and (hint is not int or dtype.kind in "iu")
    return all(_fits(value, hint) for value in values)


def _words(hint: Any, plural: bool = False) -> str:
    """Return a type in words, such as "text, a list of whole numbers or None"."""
    told = [_word(one) for one in _alternatives(hint)]
    *first, last = dict.fromkeys(map(_plural, told) if plural else told)
    return f"{', '.join(first)} or {last}" if first else last


def _word(hint: Any) -> str:
    kind, item = get_origin(hint) or hint, _items(hint)
    if item is not None:
        return f"a list of {_words(item, plural=True)}"
    if kind is tuple:
        return f"a pair of {_words(get_args(hint)[0], plural=True)}"
    return _WORDS.get(kind) or str(getattr(kind, "__name__", kind))


def _plural(words: str) -> str:
    plain = words.removeprefix("a ")
    return {"text": "texts", "dictionary": "dictionaries"}.get(plain, f"{plain}s")
