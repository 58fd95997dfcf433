"""What a model writes: continuations of texts and answers to conversations, as Python asks for.

It joins tokenizer, template and session; many answers in one step are ggq.runtime.batching's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from ggq.arguments import checked
from ggq.gguf import GGUFFile
from ggq.models.hparams import HParams, check_generates
from ggq.once import once
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.session import Session
from ggq.runtime.texts import strings

if TYPE_CHECKING:  # imported where they are used: whoever embeds or evaluates needs none
    from ggq.runtime.engine.engine import Engine
    from ggq.runtime.generation.answer import AnswerConfig
    from ggq.runtime.generation.generation import Stats
    from ggq.runtime.grammar.asked import Asked
    from ggq.runtime.grammar.compiler import GrammarCompiler, MakeConstraint
    from ggq.runtime.pictures.gallery import Gallery
    from ggq.runtime.template.template import ChatTemplate
    from ggq.runtime.tokenizers.base import Tokenizer

__all__ = ["Answers", "Detail", "Usage"]

_TAIL = 64  # tokens of a prompt's end: more than the mark that opens thoughts


@dataclass(frozen=True)
class Usage:
    """What an answer took: tokens of prompt and answer, seconds of each."""

    prompt_tokens: int
    completion_tokens: int
    prompt_seconds: float
    seconds: float


@dataclass(frozen=True)
class Detail:
    """What came with one token: the text that became certain, perhaps none; ``str()`` is the text.

    The last one of an answer has the rest of the text, ``finish_reason`` and ``usage``.
    ``finish_reason``: stop (the model ended its turn or wrote ``stop``, a text of those given) or
    length (``max_tokens``, or the context is full).
    """

    text: str
    token_id: int | None = None
    finish_reason: str | None = None
    stop: str | None = None
    usage: Usage | None = None

    def __str__(self) -> str:
        return self.text


class Answers:
    """The part of `ggq.runtime.model.Model` that writes; the rest is what it works with."""

    gguf: GGUFFile
    hparams: HParams
    n_ctx: int
    if TYPE_CHECKING:

        @property
        def engine(self) -> Engine: ...
        @property
        def gallery(self) -> Gallery | None: ...
        @property
        def tokenizer(self) -> Tokenizer: ...
        def session(self) -> Session: ...
        def tokenize(self, text: str) -> list[int]: ...
        def _needs_weights(self) -> None: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = 128,
        stop: str | Sequence[str] | None = (),
        details: Literal[False] = False,
        **sampling: Any,
    ) -> Iterator[str]: ...
    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = 128,
        stop: str | Sequence[str] | None = (),
        details: Literal[True],
        **sampling: Any,
    ) -> Iterator[Detail]: ...
    @checked
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = 128,
        stop: str | Sequence[str] | None = (),
        details: bool = False,
        **sampling: Any,
    ) -> Iterator[str] | Iterator[Detail]:
        """Yield the continuation of a prompt in pieces of text; what is wrong is told at once.

        ``details``: yield a `Detail` for each token instead, the last with why it ended and what it
        took. ``sampling``: fields of `ggq.runtime.sampling.SamplingParams`, and ``grammar`` (GBNF
        or Lark) or ``response_format`` ({"type": "json_object"}, or OpenAI's "json_schema" with
        a schema), which the text then has to fit; these need the package llguidance.
        """
        from ggq.runtime.generation.answer import AnswerConfig

        self._needs_weights()
        check_generates(self.hparams)
        asked, config = _asked(sampling), AnswerConfig(max_tokens, strings(stop))
        params = self.sampling(sampling)
        constraint = asked.made(self._grammars) if asked else None
        ids = self.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        found = self._answer(ids, params, config, constraint)
        return found if details else (one.text for one in found if one.text)

    def _answer(
        self,
        ids: list[int],
        params: SamplingParams,
        config: AnswerConfig,
        make: MakeConstraint | None,
    ) -> Iterator[Detail]:
        """Check the prompt; return the iterator over its answer."""
        from ggq.runtime.generation.generation import check_prompt

        check_prompt(ids, params, self.tokenizer.n_vocab, self.n_ctx)
        return self._written(ids, params, config, None if make is None else make())

    def _written(
        self, ids: list[int], params: SamplingParams, config: AnswerConfig, constraint: Any
    ) -> Iterator[Detail]:
        """Yield the answer to a prompt from a session of its own, which ends with it.

        In other threads answers may be written meanwhile: it waits until there is room for it.
        """
        from ggq.runtime.generation.generation import Options, Stats, generate

        stats = Stats()
        more = self.n_ctx if config.max_tokens in (None, -1) else config.max_tokens
        with self.engine.places.of(min(len(ids) + more, self.n_ctx)):
            session = self.session()
            try:
                length, stop, options = (
                    config.max_tokens,
                    config.stop,
                    Options(stats=stats, constraint=constraint),
                )
                for piece in generate(session, self.tokenizer, ids, params, length, stop, options):
                    usage = _usage(stats) if piece.finish_reason else None
                    yield Detail(piece.text, piece.token_id, piece.finish_reason, piece.stop, usage)
            finally:
                session.close()

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = 512,
        stop: str | Sequence[str] | None = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        details: Literal[False] = False,
        **sampling: Any,
    ) -> Iterator[str]: ...
    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = 512,
        stop: str | Sequence[str] | None = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        details: Literal[True],
        **sampling: Any,
    ) -> Iterator[Detail]: ...
    @checked
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = 512,
        stop: str | Sequence[str] | None = (),
        tools: Sequence[Mapping[str, Any]] | None = None,
        details: bool = False,
        **sampling: Any,
    ) -> Iterator[str] | Iterator[Detail]:
        """Yield the assistant's answer to a conversation in pieces of text.

        A content is a text or a list of parts: {"type": "text", "text": ...} and, for a model with
        a projector (``mmproj``), OpenAI's {"type": "image_url", ...} of a data: URL, or {"type":
        "image", "image": ...}: a path, a file's bytes or Pillow's image. ``details`` and
        ``sampling`` as for `generate`.
        """
        from ggq.runtime.generation.answer import AnswerConfig

        self._needs_weights()
        check_generates(self.hparams)
        asked, config = _asked(sampling), AnswerConfig(max_tokens, strings(stop))
        params = self.sampling(sampling)
        ids = self.chat_ids(messages, tools=tools)
        make = asked.made(self._grammars) if asked else None
        if make is not None:
            make = self._after_thoughts(make, ids)
        found = self._answer(ids, params, config, make)
        return found if details else (one.text for one in found if one.text)

    def _after_thoughts(self, make: MakeConstraint, prompt: list[int]) -> MakeConstraint:
        """Return constraints that leave thoughts free where a prompt has opened them."""
        from ggq.runtime.formats import choose_format
        from ggq.runtime.grammar.compiler import AfterReasoning

        form = choose_format(self.template.source, self.tokenizer.ids)
        last = b"".join(self.tokenizer.token_bytes(i) for i in prompt[-_TAIL:] if i >= 0)
        if not form.opens(last.decode("utf-8", "replace")):
            return make
        return lambda: AfterReasoning(make(), self.tokenizer, form.think[1])

    @once
    def _grammars(self) -> GrammarCompiler:
        from ggq.runtime.grammar.compiler import GrammarCompiler

        return GrammarCompiler(self.tokenizer)

    @checked
    def chat_ids(self, messages: Sequence[Mapping[str, Any]], **template: Any) -> list[int]:
        """Return the token ids of a conversation under the model's own template."""
        from ggq.runtime.generation.messages import read_messages
        from ggq.runtime.pictures.rendering import rendered
        from ggq.runtime.template.template import encode_segments

        read = read_messages(messages)
        return encode_segments(
            self.tokenizer, rendered(self.template, read, self.gallery, **template)
        )

    @once
    def template(self) -> ChatTemplate:
        """The chat template."""
        from ggq.runtime.template.template import ChatTemplate

        return ChatTemplate.from_gguf(self.gguf)

    @checked
    def sampling(self, flags: Mapping[str, Any]) -> SamplingParams:
        """Return sampling parameters: ``flags``, else the file's, else the defaults."""
        return SamplingParams.resolve(dict(flags), self.gguf.metadata)


def _asked(options: dict[str, Any]) -> Asked | None:
    """Take what an answer has to be out of the options of a call, None for nothing."""
    grammar, form = options.pop("grammar", None), options.pop("response_format", None)
    if grammar is None and form is None:
        return None
    from ggq.runtime.grammar.asked import Asked

    return Asked(grammar, form)


def _usage(stats: Stats) -> Usage:
    seconds = stats.prompt_seconds, stats.generation_seconds
    return Usage(stats.prompt_tokens, stats.generated_tokens, *seconds)
