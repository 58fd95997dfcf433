"""Chat templates: messages to prompt text, with every character's origin, and to token ids.

The model's own Jinja template comes from its GGUF file and is not trusted: it runs in a limited
sandbox. Users' text is not trusted either: what they wrote never becomes a control token. It does
not know what is done with the prompt.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import jinja2
from jinja2.exceptions import TemplateSyntaxError

from ggq.errors import FormatError, GGQError, UsageError, printable
from ggq.runtime.template.defaults import USUAL, default_template
from ggq.runtime.template.readings import readings
from ggq.runtime.template.sandbox import Budget, TemplateEnvironment, TemplateLimitError
from ggq.runtime.template.text import FOREIGN, OWN, Text, mask_of
from ggq.runtime.template.thoughts import placed

KEY = "tokenizer.chat_template"
_MAX_SOURCE = 1 << 16  # characters; the longest published templates have some 20k
# Templates build control tokens from roles ('<|' + role + '|>'), so these names count as theirs.
ROLES = frozenset({
    "system", "developer", "user", "human", "assistant", "model", "tool", "tools", "function",
    "ipython", "observation", "environment", "documents", "context",
})  # fmt: skip
_REASONING = ("reasoning_content", "thinking", "reasoning")
_SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True)
class Segment:
    """A run of prompt text; ``parse_special`` only where the template itself wrote it.

    ``ids``: tokens that stand there instead, a picture's; the text is then a name of it.
    """

    text: str
    parse_special: bool
    ids: tuple[int, ...] = ()


class ChatTemplate:
    """One model's way to write a conversation; renders as transformers does."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str] | None = None,
        variants: Mapping[str, str] | None = None,
    ) -> None:
        """Take the Jinja source, ``{"bos_token": "<s>", ...}`` and further templates by name."""
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        self.variants = dict(variants or {})
        self._compiled: dict[str, tuple[TemplateEnvironment, jinja2.Template]] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_gguf(cls, f: Any, name: str | None = None) -> ChatTemplate:
        """Read the template of a GGUF file, or the one called ``name``; without any, a default.

        Raises UsageError for an unknown ``name``.
        """
        names = [k.removeprefix(KEY + ".") for k in f.metadata if k.startswith(KEY + ".")]
        variants = {n: f.get(f"{KEY}.{n}", type=str) for n in names}
        source = f.get(KEY, type=str)
        if name and name != "default":
            if name not in variants:
                known = ", ".join(map(printable, sorted(variants))) or "none"
                raise UsageError(f"no chat template {printable(name)!r}; named ones: {known}")
            source = variants[name]
        tokens = f.metadata.get("tokenizer.ggml.tokens")
        if source is None:
            source = variants.get("default") or default_template(tokens)
        return cls(source, _special_tokens(f, tokens), variants)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[Segment]:
        """Return the prompt for ``messages``.

        ``variables`` are the template's own, such as ``enable_thinking`` or ``documents``. Raises
        UsageError where the template refuses the conversation, FormatError where it is broken or
        exceeds its limits.
        """
        given = {"tools": tools, "documents": None} | variables
        try:
            given = {name: _plain(value) for name, value in given.items()}
            source = self._source("tool_use" if given["tools"] else "")
            read = list(readings(placed(_checked(messages), source)))
            size = _size(messages) + _size(given)
        except RecursionError:
            raise UsageError("messages: nested too deeply") from None
        given["add_generation_prompt"] = add_generation_prompt
        # some templates test for "defined" what transformers passes as null
        spare = {name: value for name, value in given.items() if value is not None}
        with self._lock:
            budget = Budget(size)
            attempts = (self._render(m, g, budget) for g in (given, spare) for m in read)
            first = next(attempts)
            done = (first, *attempts) if isinstance(first, GGQError) else (first,)
        result = next((r for r in done if not isinstance(r, GGQError)), first)
        if isinstance(result, GGQError):
            raise result
        return result

    def problem(self) -> str | None:
        """Return in one line why one of the templates cannot be read, None where all can."""
        for name in ("", *self.variants):
            try:
                self._template(name, Budget(0))
            except GGQError as error:
                return str(error)
            except Exception as error:  # whatever compiling a stranger's template can raise
                return str(_explained(error))
        return None

    def render_text(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Return the prompt as one string, for people to read."""
        return "".join(segment.text for segment in self.render(messages, **options))

    def _render(
        self, messages: list[dict[str, Any]], given: dict[str, Any], budget: Budget
    ) -> list[Segment] | GGQError:
        marked = {name: Text.own(text) for name, text in self.special_tokens.items()}
        try:
            environment, template = self._template("tool_use" if given.get("tools") else "", budget)
            context = template.new_context(marked | given | {"messages": messages})
            environment.budget = budget
            pieces, size = [], 0
            for piece in template.root_render_func(context):
                size += len(piece)
                budget.check(size)
                pieces.append(piece)
            return _segments(pieces)
        except GGQError as error:
            return error
        except Exception as error:  # whatever a stranger's template can raise
            return _explained(error)

    def _source(self, name: str) -> str:
        return self.variants.get(name, self.source)

    def _template(self, name: str, budget: Budget) -> tuple[TemplateEnvironment, jinja2.Template]:
        """Return the compiled template called ``name``, or the main one."""
        name = name if name in self.variants else ""
        if name not in self._compiled:
            source = self._source(name)
            if len(source) > _MAX_SOURCE:
                raise FormatError(f"{KEY}: {len(source)} characters, at most {_MAX_SOURCE}")
            environment = TemplateEnvironment()
            environment.budget = budget
            self._compiled[name] = environment, environment.from_string(source)
        return self._compiled[name]


def chosen_template(own: ChatTemplate, wanted: str | None) -> ChatTemplate:
    """Return a model's template, or what stands in for it: Jinja source, or a name.

    Names are those of the file's further templates and of the usual ones (`USUAL`). Raises
    UsageError for others.
    """
    if wanted is None or wanted == "default":
        return own
    if "{{" in wanted or "{%" in wanted:
        return ChatTemplate(wanted, own.special_tokens)
    source = own.variants.get(wanted, USUAL.get(wanted))
    if source is None:
        known = ", ".join(map(printable, [*sorted(own.variants), *USUAL]))
        raise UsageError(f"no chat template {printable(wanted)!r}; there are: {known}")
    return ChatTemplate(source, own.special_tokens)


def encode_segments(
    tokenizer: Any, segments: Iterable[Segment], at_start: bool = True
) -> list[int]:
    """Return the token ids of a prompt, with BOS where the file asks for it and none is there.

    The text is tokenised in one piece, as the model was trained; it is cut only around control
    tokens that someone typed. ``at_start`` False: the text goes on after other tokens.
    """
    ids: list[int] = []
    run: list[Segment] = []
    for segment in segments:
        if segment.ids:
            ids += _encoded(tokenizer, run, at_start and not ids)
            ids += segment.ids
            run = []
        else:
            run.append(segment)
    return ids + _encoded(tokenizer, run, at_start and not ids)


def _encoded(tokenizer: Any, segments: list[Segment], at_start: bool) -> list[int]:
    """Return the ids of segments of text."""
    text = "".join(segment.text for segment in segments)
    mask = b"".join((OWN if s.parse_special else FOREIGN) * len(s.text) for s in segments)
    ids: list[int] = []
    for part, parse_special in _without_forgeries(text, mask, _control_tokens(tokenizer)):
        ids += tokenizer.encode(part, add_special=False, parse_special=parse_special)
    wants_bos = at_start and tokenizer.add_bos and tokenizer.bos_id is not None
    if wants_bos and ids[:1] != [tokenizer.bos_id]:
        ids.insert(0, tokenizer.bos_id)
    return ids


def _without_forgeries(
    text: str, mask: bytes, controls: _Controls | None
) -> Iterator[tuple[str, bool]]:
    """Cut ``text`` so that no control token holding foreign characters is left to be parsed."""
    forged = bytearray(len(text))
    if FOREIGN in mask and controls:
        for start, end in controls.spans(text):
            if FOREIGN in mask[start:end]:
                forged[start:end] = mask[start:end].translate(_INVERTED)
    start = 0
    for run in re.finditer(rb"\x00+|\x01+", bytes(forged)):
        yield text[start : run.end()], not forged[run.start()]
        start = run.end()


_INVERTED = bytes((1, 0)) + bytes(254)


class _Controls:
    """The texts of a vocabulary's control tokens, to be found anywhere, overlapping or not."""

    def __init__(self, texts: Iterable[str]) -> None:
        longest_first = sorted(texts, key=len, reverse=True)
        self._first = re.compile("[" + re.escape("".join({t[0] for t in longest_first})) + "]")
        self._any = re.compile("|".join(map(re.escape, longest_first)))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the longest control token at every position that begins one."""
        for first in self._first.finditer(text):
            if match := self._any.match(text, first.start()):
                yield match.span()


_controls_of: WeakKeyDictionary[Any, _Controls | None] = WeakKeyDictionary()


def _control_tokens(tokenizer: Any) -> _Controls | None:
    if tokenizer not in _controls_of:
        ids = tokenizer.all_controls()
        texts = {tokenizer.token_bytes(i).decode("utf-8", "replace") for i in ids} - {""}
        _controls_of[tokenizer] = _Controls(texts) if texts else None
    return _controls_of[tokenizer]


def _segments(pieces: list[str]) -> list[Segment]:
    """Return the pieces' characters as runs of one origin."""
    text, mask = "".join(pieces), b"".join(map(mask_of, pieces))
    runs = re.finditer(rb"\x00+|\x01+", mask)
    return [Segment(text[r.start() : r.end()], mask[r.start()] == 1) for r in runs]


def _special_tokens(f: Any, tokens: Any) -> dict[str, str]:
    found = {}
    for name, key in _SPECIAL_TOKENS.items():
        token = f.get(f"tokenizer.ggml.{key}_token_id", type=int)
        if tokens is not None and token is not None and 0 <= token < len(tokens):
            found[f"{name}_token"] = tokens.text(token)
    return found


def _plain(value: Any) -> Any:
    """Return ``value`` rebuilt of plain JSON types: templates get no objects with methods."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _size(value: Any) -> int:
    """Return how many characters the strings in ``value`` have."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(k) + _size(v) + 1 for k, v in value.items())
    return sum(_size(item) + 1 for item in value) if isinstance(value, (list, tuple)) else 1


def _checked(messages: Any) -> list[dict[str, Any]]:
    """Return a plain copy of the messages, the known roles marked as the template's own words."""
    if not isinstance(messages, (list, tuple)):
        raise UsageError(f"messages: expected a list, not {type(messages).__name__}")
    copied = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UsageError(f"messages[{i}]: expected an object with a role")
        plain = _plain(message)
        reasoning = next((plain[k] for k in _REASONING if plain.get(k) is not None), None)
        if reasoning is not None:  # templates know it by different names
            known = {"thinking": reasoning, "reasoning": reasoning}
            plain = {**known, **plain, "reasoning_content": reasoning}
        if plain["role"] in ROLES:
            plain["role"] = Text.own(plain["role"])
        copied.append(plain)
    return copied


def _explained(error: Exception) -> GGQError:
    """Return our error for anything that compiling or rendering raised."""
    message = printable(str(error), 300)
    if isinstance(error, TemplateLimitError):
        return FormatError(f"{KEY}: the chat template {message}")
    if isinstance(error, TemplateSyntaxError):
        return FormatError(f"{KEY}: line {error.lineno}: {message}")
    if type(error) is jinja2.TemplateError:  # what raise_exception raises
        return UsageError(f"the chat template refuses this conversation: {message}")
    if isinstance(error, RecursionError):
        return FormatError(f"{KEY}: the chat template nests too deeply")
    return FormatError(f"{KEY}: {type(error).__name__}: {message}")
