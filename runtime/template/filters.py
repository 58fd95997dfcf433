"""Jinja filters for chat templates that keep marks, as transformers defines them, within a budget.

Each takes the environment first and asks its budget before it makes anything large. Filters that
cannot grow or hang are Jinja's own; those that can and that no chat needs are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2.exceptions import FilterArgumentError, TemplateError
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.utils import pass_environment

from ggq.runtime.template.text import join, join_checked

_JINJA_OWN = (
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "string", "title", "trim",
    "truncate", "unique", "upper", "wordcount",
)  # fmt: skip
_WIDEST = 1000
_TAKING_APART = {"list", "sort", "unique", "map", "min", "max", "groupby"}
_LETTER_COST = 8  # a letter on its own is an object: so much dearer than in its text


def filters(environment: Any) -> dict[str, Callable[..., Any]]:
    """Return the filters of ``environment``, each one checking its time and result."""
    own = {
        "indent": indent,
        "join": join_filter,
        "replace": replace,
        "round": round_filter,
        "safe": safe,
        "sum": sum_filter,
        "tojson": tojson,
    }
    chosen = {name: FILTERS[name] for name in _JINJA_OWN} | own
    return {name: _guarded(environment, name, f) for name, f in chosen.items()}


def _guarded(environment: Any, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        environment.budget.tick()
        if name in _TAKING_APART:
            letters = sum(len(a) for a in args if isinstance(a, str))
            environment.budget.check(letters * _LETTER_COST)
        return environment.accounted(function(*args, **kwargs))

    return guarded


@pass_environment
def join_filter(env: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    """Join the items, or their attribute, with ``d`` between them."""
    items = map(make_attrgetter(env, attribute), value) if attribute is not None else value
    return join_checked(map(str, items), str(d), env.budget.check)


@pass_environment
def replace(env: Any, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    """Replace ``old`` by ``new``, the first ``count`` times."""
    s, old, new = str(s), str(old), str(new)
    env.check_replace(s, old, new)
    found: str = s.replace(old, new, -1 if count is None else count)
    return found


@pass_environment
def indent(env: Any, s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Indent every line but the first by ``width`` spaces or the given text."""
    if not isinstance(width, str) and width > _WIDEST:
        raise FilterArgumentError("indent: too large a width")
    prefix = width if isinstance(width, str) else " " * width
    lines = (str(s) + "\n").splitlines()
    env.budget.check(sum(map(len, lines)) + len(lines) * (len(prefix) + 1))
    shifted = [prefix + line if line or blank else line for line in lines[1:]]
    body = join([lines[0], *shifted], "\n")
    return prefix + body if first else body


def safe(value: Any) -> Any:
    """Return the value: nothing is escaped here."""
    return value


@pass_environment
def sum_filter(env: Any, iterable: Iterable[Any], attribute: Any = None, start: float = 0) -> Any:
    """Add numbers, or their attribute."""
    if not isinstance(start, (int, float)):
        raise FilterArgumentError("sum adds numbers only")
    items = map(make_attrgetter(env, attribute), iterable) if attribute is not None else iterable
    return sum(items, start)


def round_filter(value: Any, precision: int = 0, method: str = "common") -> float:
    """Round to ``precision`` digits."""
    if not -_WIDEST < precision < _WIDEST:
        raise FilterArgumentError("round: too large a precision")
    found: float = FILTERS["round"](value, precision, method)
    return found


@pass_environment
def tojson(
    env: Any,
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without escaping other than JSON's own."""
    if (len(indent) if isinstance(indent, str) else indent or 0) > _WIDEST:
        raise FilterArgumentError("tojson: too large an indent")
    x = _listed(env, x) if isinstance(x, Iterator) else x
    env.budget.weigh(x)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is None:
        return encoder.encode(x)
    chunks, size = [], 0
    for chunk in encoder.iterencode(x):
        env.budget.tick()
        size += len(chunk)
        env.budget.check(size)
        chunks.append(chunk)
    return "".join(chunks)


def _listed(env: Any, items: Iterator[Any]) -> list[Any]:
    """Return what a filter such as map makes one by one."""
    found = []
    for item in items:
        env.budget.tick()
        found.append(item)
    return found


def raise_exception(message: Any) -> None:
    """Refuse the conversation, with the template's own words."""
    raise TemplateError(str(message))


def strftime_now(format: str) -> str:
    """Return the local time; C's field widths are refused."""
    if any(char.isdigit() for char in format) and "%" in format:
        stripped = format.replace("%%", "")
        if any(after.lstrip("_-^#0+")[:1].isdigit() for after in stripped.split("%")[1:]):
            raise ValueError("strftime_now takes no field widths")
    return datetime.now().strftime(format)
