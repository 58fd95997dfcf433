"""Where a chat's models come from: files of this machine, or a server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ggq.commands._cache import cache_type
from ggq.commands._devices import weights
from ggq.commands._draft import drafting
from ggq.commands._models import model_path
from ggq.errors import UsageError, printable

__all__ = ["LocalHost", "RemoteHost", "variables"]

_THINKS = re.compile("think|reason|channel", re.IGNORECASE)


def variables(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the template is told besides messages."""
    return {} if options["think"] is None else {"enable_thinking": options["think"]}


class LocalHost:
    """Opens models; one is open at a time."""

    def __init__(
        self, options: dict[str, Any], settings: Any, printer: Any, demand: Any = None
    ) -> None:
        """Take the command's options; the model's own sampling values go to ``settings``.

        ``demand``: the form that every answer must have (`ggq.runtime.grammar.asked`).
        """
        self._options, self._settings, self._printer = options, settings, printer
        self._demand = demand
        self._n_ctx = options["ctx"]
        self.model: Any = None
        self.path = Path()
        self.conversation: Any = None

    def __enter__(self) -> LocalHost:
        return self

    def __exit__(self, *_: object) -> None:
        if self.model is not None:
            self.model.close()

    def open(self, reference: str | None) -> Any:
        """Open a model; return a conversation with it."""
        path = model_path(reference, self._options["yes"])
        self.conversation = self._opened(path, self._n_ctx)
        return self.conversation

    def warm_up(self) -> None:
        """Compile, and bring the weights into memory, before anyone waits for an answer."""
        self._printer.note(f"loading {printable(self.path.name)} ...")
        self.model.engine.warm_up()

    def info(self) -> Iterator[str]:
        """Yield lines about the model."""
        hp, gguf = self.model.hparams, self.model.gguf
        name = gguf.metadata.get("general.name")
        yield f"model: {printable(name or self.path.stem)}"
        yield f"file: {printable(self.path, 400)} ({self.path.stat().st_size / 1e6:.0f} MB)"
        kind = gguf.metadata.get("general.architecture")
        yield f"architecture: {printable(kind)}, trained for {hp.n_ctx_train} tokens"
        licence = gguf.metadata.get("general.license")
        yield f"licence: {printable(licence or 'not stated in the file')}"
        yield f"device: {self.model.device}"
        if self.model.projector is not None:
            yield f"pictures: {printable(self.model.projector, 400)}"

    def models(self) -> Iterator[str]:
        """Yield the fetched models' names, and the GGUF files of this folder."""
        from ggq import hub

        yield from (model.name for model in hub.stored_models())
        yield from sorted(path.name for path in Path().glob("*.gguf"))

    def change(self, name: str | None, n_ctx: int | None) -> Any:
        """Return a conversation with another model or context, the same messages in it."""
        path = model_path(name, self._options["yes"]) if name else self.path
        n_ctx = self._n_ctx if n_ctx is None else n_ctx
        old, before = self.model, self.conversation
        conversation = self._opened(path, n_ctx)
        conversation.messages, conversation.summary = before.messages, before.summary
        conversation.template_options = before.template_options
        old.close()
        self._n_ctx, self.conversation = n_ctx, conversation
        self.warm_up()
        return conversation

    def _opened(self, path: Path, n_ctx: int | None) -> Any:
        from ggq.models.hparams import check_generates
        from ggq.runtime.chat.looking import Looking
        from ggq.runtime.generation.conversation import Conversation
        from ggq.runtime.model import load
        from ggq.runtime.template.template import ChatTemplate

        options, raw, name = self._options, self._options["raw"], self._options["template"]
        kinds = {n: options[n] for n in ("device", "device_weights")} | drafting(options)
        limits = {"n_ctx": n_ctx, "threads": options["threads"]}
        limits |= {name: options[name] for name in ("cache_disk", "lora", "mmproj")}
        model = load(weights(path, options), cache_type=cache_type(options), **limits, **kinds)
        try:
            check_generates(model.hparams)
            template = ChatTemplate.from_gguf(model.gguf, name) if name else model.template
            form = None if raw else _form(template.source, model.tokenizer.ids)
            found = Conversation(
                model.session,
                model.tokenizer,
                template,
                options["system"],
                variables(options),
                form,
            )
            if self._demand:
                found.ask(self._demand)
            found.gallery = model.gallery
        except BaseException:
            model.close()
            raise
        if model.gallery is not None:
            model.gallery.progress = Looking(self._printer)
        for warning in model.warnings:
            self._printer.note(f"warning: {printable(warning, 400)}")
        self.model, self.path, self._settings.metadata = model, path, model.gguf.metadata
        return found


def _form(template: str, tokens: Mapping[str, int]) -> Any:
    """Return how a model writes thoughts, None for one that nothing says it of.

    The formats take a tenth of a second to import, which models without thoughts need not pay.
    """
    if not _THINKS.search(template) and "<think>" not in tokens:
        return None
    from ggq.runtime.formats import choose_format

    return choose_format(template, tokens)


class RemoteHost:
    """Talks with a server, which opens models as it likes."""

    def __init__(self, conversation: Any) -> None:
        """Take the conversation with it."""
        self._conversation = conversation

    def info(self) -> Iterator[str]:
        """Yield lines about the server."""
        about = self._conversation.get("/props")
        yield f"server: {printable(self._conversation.url)}"
        yield f"model: {printable(self._conversation.model or about.get('model') or 'its own')}"

    def models(self) -> Iterator[str]:
        """Yield the models that the server lists."""
        for model in self._conversation.get("/v1/models").get("data") or ():
            yield str(model.get("id"))

    def change(self, name: str | None, n_ctx: int | None) -> Any:
        """Have the next requests name another model; the messages stay."""
        if n_ctx is not None:
            raise UsageError("/ctx: the context is the server's to choose (ggq serve --ctx)")
        self._conversation.model = name
        return self._conversation
