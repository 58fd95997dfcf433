"""Texts to embed and to rank: prompts before them, a query beside a document, cut where asked.

It knows tokenizers and a file's keys, no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ggq.errors import UsageError, printable
from ggq.runtime.template.template import Segment, encode_segments
from ggq.runtime.tokenizers.base import Tokenizer

__all__ = ["Documents"]

PROMPT = "ggq.prompt."
DEFAULT = "default"  # the prompt of texts for which none is asked
RERANK = "tokenizer.chat_template.rerank"
_PLACES = re.compile(r"(\{query\}|\{document\})")


class Documents:
    """Token ids of texts as a model wants them; ``n_types``: kinds of parts that it tells apart."""

    def __init__(self, tokenizer: Tokenizer, metadata: Mapping[str, Any], n_types: int = 0):
        self.tokenizer, self.n_types = tokenizer, n_types
        self.prompts = {
            key.removeprefix(PROMPT): text
            for key, text in metadata.items()
            if key.startswith(PROMPT) and isinstance(text, str)
        }
        template = metadata.get(RERANK)
        self._template = template if isinstance(template, str) else None

    def prompt(self, name: str | None, text: str | None = None) -> str:
        """Return what goes before texts: ``text``, else the prompt called so; UsageError."""
        if text is not None and name is not None:
            raise UsageError("give a prompt or its name, not both")
        if text is not None:
            return text
        if name is None:
            return self.prompts.get(DEFAULT, "")
        if name not in self.prompts:
            known = ", ".join(n for n in self.prompts if n != DEFAULT) or "none at all"
            raise UsageError(f"prompt name {printable(repr(name), 60)}: the file has {known}")
        return self.prompts[name]

    def ids(self, text: str, limit: int | None = None) -> list[int]:
        """Return a text's ids, cut to ``limit`` before what closes it."""
        ids = self.tokenizer.encode(text)
        if limit is None or len(ids) <= limit:
            return ids
        closing = len(self._closed([]))
        return [*ids[: max(limit - closing, 0)], *ids[len(ids) - closing :]][:limit]

    def pair(self, query: str, document: str, limit: int | None = None) -> tuple[list[int], Any]:
        """Return ids of a query with a document, and the type of each; the document is cut.

        UsageError where no room is left for it.
        """
        if self._template is not None:
            return self._templated(query, document, limit), None
        first = [*self._opened(), *self._closed(self._plain(query))]
        if self.tokenizer.add_sep and self.tokenizer.sep_id is not None:
            first.append(self.tokenizer.sep_id)
        last, closing = self._plain(document), self._closed([])
        if limit is not None and len(first) + len(last) + len(closing) > limit:
            last = last[: self._room(limit - len(first) - len(closing))]
        second = [*last, *closing]
        ids = first + second
        types = [0] * len(first) + [1] * len(second) if self.n_types > 1 else None
        return ids, types

    def _templated(self, query: str, document: str, limit: int | None) -> list[int]:
        ids = self._filled({"{query}": query, "{document}": document})
        if limit is None or len(ids) <= limit:
            return ids
        room = self._room(limit - (len(ids) - len(self._plain(document))) - 1)
        cut = self.tokenizer.decode(self._plain(document)[:room])
        return self._filled({"{query}": query, "{document}": cut})

    def _filled(self, values: Mapping[str, str]) -> list[int]:
        """Return the ids of the template with texts in its places; no text is read as a mark."""
        assert self._template is not None
        parts: Iterable[str] = _PLACES.split(self._template)
        segments = [Segment(values.get(part, part), part not in values) for part in parts]
        return encode_segments(self.tokenizer, segments)

    def _room(self, n: int) -> int:
        if n < 1:
            raise UsageError("the query leaves no room for a document")
        return n

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special=False)

    def _opened(self) -> list[int]:
        bos = self.tokenizer.bos_id
        return [bos] if self.tokenizer.add_bos and bos is not None else []

    def _closed(self, ids: list[int]) -> list[int]:
        """Return ``ids`` with what the tokenizer puts behind a text."""
        ends = self.tokenizer.encode("")[len(self._opened()) :]
        return [*ids, *ends]
