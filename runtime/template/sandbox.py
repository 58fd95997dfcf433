"""A Jinja environment for templates from strangers: sandboxed, and limited in time and size.

It renders as transformers' chat templates do, and yields ``Text`` that tells the template's own
characters from foreign ones. Instead of a subprocess, which would cost every chat a start, each
operation that can grow or repeat asks a budget first. It knows nothing about chats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.utils import Namespace

from ggq.runtime.template.filters import filters, raise_exception, strftime_now
from ggq.runtime.template.text import Text, format_text, join_checked

SECONDS = 0.8  # a real template takes milliseconds; a single step may overrun by some tenths
BASE_SIZE = 1 << 20  # characters of one string or list, on top of what the input's size allows
_MAX_BITS = 4096
_STRING_METHODS = frozenset((
    "startswith", "endswith", "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines",
    "replace", "join", "lower", "upper", "title", "capitalize", "swapcase", "casefold", "find",
    "rfind", "index", "rindex", "count", "isdigit", "isalpha", "isalnum", "isspace", "isnumeric",
    "isdecimal", "isupper", "islower", "istitle", "partition", "rpartition", "removeprefix",
    "removesuffix", "format",
))  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING_METHODS,
    dict: frozenset(("items", "keys", "values", "get", "copy")),
    list: frozenset(("index", "count", "copy")),
    tuple: frozenset(("index", "count")),
}
_CHANGES = {  # methods that alter what the template itself has made, and how their arguments go in
    "append": "held", "insert": "held", "setdefault": "held", "extend": "copied",
    "update": "copied", "pop": "read", "remove": "read", "reverse": "read", "clear": "read",
}  # fmt: skip


class TemplateLimitError(Exception):
    """A template used up its time or size; the message says which."""


class Budget:
    """What one rendering may use: seconds of its processor, characters of one value and of all."""

    def __init__(self, input_size: int = 0) -> None:
        """Allow more to larger inputs: templates copy messages, some of them many times."""
        self.deadline = time.thread_time() + SECONDS
        self.largest = BASE_SIZE + 8 * input_size
        self.left = 8 * BASE_SIZE + 1024 * input_size

    def tick(self) -> None:
        """Raise TemplateLimitError when time is up."""
        if time.thread_time() > self.deadline:
            raise TemplateLimitError("runs too long")

    def check(self, size: float) -> None:
        """Raise TemplateLimitError when one value of ``size`` characters would be too large."""
        if size > self.largest:
            raise TemplateLimitError("makes too large a text")

    def spend(self, size: int) -> None:
        """Count ``size`` new characters."""
        self.check(size)
        self.left -= size
        if self.left < 0:
            raise TemplateLimitError("makes too much text")

    def weigh(self, value: Any) -> int:
        """Return about how long ``value`` is when printed, counting shared parts every time.

        The containers inside can no longer be changed: their weight is part of another's.
        """
        total, stack = 0, [value]
        while stack:
            item = stack.pop()
            if isinstance(item, (_List, _Tuple, _Dict)):
                total += item.weight
                item.inside = item.inside or item is not value
            elif isinstance(item, dict):
                stack += [*item.keys(), *item.values()]
            elif isinstance(item, (list, tuple, set)):
                stack += item
            elif isinstance(item, str):
                total += len(item)
            total += 1
            self.check(total + len(stack))
        return total


class _List(list[Any]):
    weight, inside = 0, False


class _Tuple(tuple[Any, ...]):
    weight, inside = 0, False


class _Dict(dict[Any, Any]):
    weight, inside = 0, False


class _Namespace(Namespace):
    """Variables that a template can set; private names and endless representations are barred."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        Namespace.__init__(self)
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"namespace attribute {name!r} is private")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


class _Generation(Extension):
    """``{% generation %}`` marks answers for training; here its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        found: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return found


class _CodeGenerator(CodeGenerator):
    """Compiles a template so that its literals are marked as own and its loops are counted."""

    def _literal(self, text: str) -> str:
        texts = self.environment.texts  # type: ignore[attr-defined]
        texts.append(Text.own(text))
        return f"environment.texts[{len(texts) - 1}]"

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return self._literal("".join(group))

    def visit_Const(self, node: nodes.Const, frame: Any) -> None:
        if isinstance(node.value, str):
            self.write(self._literal(node.value))
        else:
            super().visit_Const(node, frame)

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Any) -> None:
        self.write(self._literal(node.data))

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.join_values((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_For(self, node: nodes.For, frame: Any) -> None:
        tick = nodes.ExprStmt(nodes.EnvironmentAttribute("tick"), lineno=node.lineno)
        node.body.insert(0, tick)
        super().visit_For(node, frame)

    def _built(self, visit: Callable[..., None], node: nodes.Node, frame: Any) -> None:
        self.write("environment.built(")
        visit(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        self._built(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._built(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        if node.ctx == "load":
            self._built(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles one template; set ``budget`` before rendering. Not for two threads at once."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self) -> None:
        """Make the environment that transformers' templates expect, without a loader."""
        # Without the optimizer constants stay leaves, where the code generator marks them.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=[_Generation, loopcontrols],
        )
        self.budget = Budget()
        self.texts: list[Text] = []
        self.filters = filters(self)
        self.globals = {
            "range": safe_range,
            "dict": lambda *args, **kwargs: self.built(dict(*args, **kwargs)),
            "namespace": _Namespace,
            "cycler": self.globals["cycler"],
            "joiner": self.globals["joiner"],
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
        }

    @property
    def tick(self) -> None:
        """Check the time; a property so that compiled loops can name it as a statement."""
        self.budget.tick()

    def concat(self, pieces: Iterable[str]) -> Text:
        """Join the output of a macro or block."""
        return join_checked(pieces, "", self.budget.spend)

    def join_values(self, values: Iterable[Any]) -> Text:
        """Join the operands of ``~``."""
        return self.concat([str(value) for value in values])

    def built(self, value: Any) -> Any:
        """Return a new container with its weight, if it is not too heavy."""
        weight = self.budget.weigh(value)
        kind = _Dict if isinstance(value, dict) else _Tuple if isinstance(value, tuple) else _List
        built = kind(value)
        built.weight = weight
        return built

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute ``+ * % **`` if the result stays small."""
        self.budget.tick()
        kinds = (str, list, tuple)
        if operator == "%" and isinstance(left, str):
            self._check_format(left, right)
        elif operator == "*" and isinstance(left, kinds):
            self.budget.check(self.budget.weigh(left) * max(_int(right), 0))
        elif operator == "*" and isinstance(right, kinds):
            self.budget.check(self.budget.weigh(right) * max(_int(left), 0))
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.budget.check(len(left) + len(right))
        elif operator != "+" and _bits(operator, left, right) > _MAX_BITS:
            raise TemplateLimitError("computes too large a number")
        return self.accounted(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a macro, function or method if the result stays small."""
        __self.budget.tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            __self._check_method(__obj.__name__, owner, args)
        elif isinstance(owner, (_List, _Dict)) and __obj.__name__ in _CHANGES:
            __self._check_change(__obj.__name__, owner, args, kwargs)
        return __self.accounted(super().call(__context, __obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow only the named methods of strings, dicts and lists, none of numbers.

        Kimi-K2 queues tool calls in a list: what a template has made it may change, too.
        """
        if isinstance(obj, (bool, int, float, bytes)):
            return False
        if isinstance(obj, (_List, _Dict)) and attr in _CHANGES:
            return hasattr(type(obj), attr)
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a ``format`` method that keeps marks and refuses wide fields."""
        owner = getattr(value, "__self__", None)
        if not isinstance(owner, str) or getattr(value, "__name__", "") != "format":
            return None

        def format(*args: Any, **kwargs: Any) -> str:
            formatter, numbers = SandboxedFormatter(self), iter(range(len(args)))

            def field(name: str) -> Any:
                if not name or name[0] in ".[":
                    name = f"{next(numbers)}{name}"
                found = formatter.get_field(name, args, kwargs)[0]
                self.budget.spend(self.budget.weigh(found))
                return found

            return format_text(owner, field)

        return format

    def _check_method(self, name: str, owner: str, args: tuple[Any, ...]) -> None:
        if name == "join" and args and isinstance(args[0], (list, tuple)):
            self.budget.check(self.budget.weigh(args[0]) + len(owner) * len(args[0]))
        elif name in ("split", "rsplit", "splitlines"):  # a part costs far more than its letters
            self.budget.check(len(owner) * (8 if isinstance(owner, Text) else 2))
        elif name == "replace" and len(args) > 1:
            self.check_replace(owner, *args[:2])

    def _check_change(self, name: str, owner: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        """Count what a list or dict of the template's own is about to take in."""
        how, given = _CHANGES[name], (*args, kwargs) if kwargs else args
        if how == "copied":
            if not all(isinstance(value, (list, tuple, dict, str)) for value in given):
                raise SecurityError(f"{name} of something that is no list, dict or text")
            weight = sum(map(self.budget.weigh, given))
        else:
            weight = self.budget.weigh(given) if how == "held" else 0
        if owner.inside:
            raise SecurityError(f"{name} changes a container that is part of another")
        self.budget.spend(weight)
        self.budget.check(owner.weight + weight)
        owner.weight += weight

    def check_replace(self, text: str, old: Any, new: Any) -> None:
        """Raise TemplateLimitError if replacing ``old`` by ``new`` makes too long a text."""
        if isinstance(old, str) and isinstance(new, str):
            self.budget.check(len(text) + text.count(old) * len(new))

    def _check_format(self, template: str, values: Any) -> None:
        digits = "".join(c if c.isdigit() else " " for c in template).split()
        if any(len(d) > 3 for d in digits) or "*" in template:
            raise TemplateLimitError("formats with too large a width")
        self.budget.check(len(template) + template.count("%") * self.budget.weigh(values))

    def accounted(self, value: Any) -> Any:
        """Count a new text, weigh a new container, pass anything else."""
        if isinstance(value, str):
            self.budget.spend(len(value))
        elif isinstance(value, (list, tuple, dict)) and not isinstance(
            value, (_List, _Tuple, _Dict)
        ):
            # A new object only when it is a builtin's own: named tuples of groupby keep their type.
            return self.built(value) if type(value) in (list, tuple, dict) else value
        return value


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bits(operator: str, left: Any, right: Any) -> int:
    """Return at most how many bits the result of a computation with integers has."""
    if not isinstance(left, int) or not isinstance(right, int):
        return 0
    if operator == "**":
        return left.bit_length() * max(right, 0)
    return left.bit_length() + right.bit_length()
