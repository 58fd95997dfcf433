"""The tokenizer files of a Hugging Face folder, read and merged into one view.

tokenizer.json, tokenizer.model, tokenizer_config.json, special_tokens_map.json, added_tokens.json,
chat templates and config.json. It does not know GGUF keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ggq.converters.checkpoint.folder import read_json
from ggq.converters.vocab import plain_files, tekken
from ggq.errors import FormatError, printable, reason

NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class Added:
    """A token besides the model's own vocabulary, or one of them marked special."""

    text: str
    special: bool


def content(entry: Any) -> str | None:
    """Return the text of a token given as a string or as {"content": ...}."""
    if isinstance(entry, Mapping):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _text(path: Path) -> str:
    """Return a file's text; FormatError."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{printable(path)}: cannot be read: {reason(error)}") from None


def looks_special(text: str) -> bool:
    """Return whether a token is a control by its looks: some models forget to mark theirs.

    The rule of llama.cpp's converter (does_token_look_special).
    """
    if text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    return (
        (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<｜") and text.endswith("｜>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


@dataclass
class TokenizerFiles:
    """One folder's tokenizer files; what is absent is empty."""

    folder: Path
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def json(self) -> dict[str, Any]:
        """tokenizer.json, or what other files of a tokenizer make in its form."""
        found = read_json(self.folder / "tokenizer.json")
        if found or self.sentencepiece:
            return found
        if self._has(tekken.NAME):
            return tekken.as_tokenizer_json(read_json(self.folder / tekken.NAME))
        if self._has(plain_files.VOCAB, plain_files.MERGES):
            vocab = read_json(self.folder / plain_files.VOCAB)
            return plain_files.bpe(self.folder, vocab, self._said, self.model_config)
        if self._has(plain_files.WORDS):
            return plain_files.word_piece(self.folder, self._said)
        return {}

    @cached_property
    def is_made(self) -> bool:
        """Tell whether ``json`` was made of other files."""
        return bool(self.json) and not self._has("tokenizer.json")

    def _has(self, *names: str) -> bool:
        return all((self.folder / name).is_file() for name in names)

    @cached_property
    def _said(self) -> dict[str, Any]:
        return read_json(self.folder / "tokenizer_config.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """tokenizer_config.json; where tokenizer.json is made, with what its class has besides."""
        if not self.is_made:
            return self._said
        special = tekken.SPECIAL
        if not self._has(tekken.NAME):
            special = plain_files.defaults(self.folder, self._said, self.model_config)
        named = read_json(self.folder / "special_tokens_map.json")
        return {**{k: v for k, v in special.items() if k not in named}, **self._said}

    @cached_property
    def model_config(self) -> dict[str, Any]:
        """config.json with a multimodal model's text part merged in where keys are absent."""
        config = read_json(self.folder / "config.json")
        text = config.get("text_config")
        return {**text, **config} if isinstance(text, dict) else config

    @cached_property
    def generation(self) -> dict[str, Any]:
        """generation_config.json."""
        return read_json(self.folder / "generation_config.json")

    @property
    def sentencepiece(self) -> Path | None:
        """tokenizer.model, if there is one; Mistral's own have a version behind it."""
        found = [
            self.folder / "tokenizer.model",
            *sorted(self.folder.glob("tokenizer.model.v[0-9]")),
        ]
        return next((path for path in found if path.is_file()), None)

    @cached_property
    def model(self) -> dict[str, Any]:
        """The "model" part of tokenizer.json; FormatError where it is malformed."""
        model = self.json.get("model")
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
            raise FormatError(f"{self.folder / 'tokenizer.json'}: no model with a vocabulary")
        return model

    @cached_property
    def named(self) -> dict[str, str]:
        """Return the texts of named special tokens: "bos" -> "<s>"."""
        found = {}
        special_map = read_json(self.folder / "special_tokens_map.json")
        for source in (special_map, self.config):
            for name in NAMED:
                value = source.get(f"{name}_token")
                if (text := content(value)) is not None:
                    found[name] = text
                elif value:
                    what = f"{name}_token is {printable(repr(value), 40)}, expected a text"
                    self.warnings.append(f"{what}: left out")
        return found

    @cached_property
    def added(self) -> dict[int, Added]:
        """Return added tokens by id, from every file that may list them."""
        found: dict[int, Added] = {}
        for entry in self.json.get("added_tokens") or ():
            self._take(found, entry.get("id"), entry)
        decoder = self.config.get("added_tokens_decoder")
        for key, entry in (decoder if isinstance(decoder, dict) else {}).items():
            self._take(found, int(key) if str(key).isdecimal() else None, entry)
        texts = {added.text for added in found.values()}
        for text, number in read_json(self.folder / "added_tokens.json").items():
            if text not in texts:
                self._take(found, number, {"content": text})
        return self._mark_named(found)

    def _take(self, found: dict[int, Added], number: Any, entry: Any) -> None:
        text = content(entry)
        if isinstance(number, bool) or not isinstance(number, int) or number < 0 or text is None:
            raise FormatError(
                f"{self.folder}: malformed added token {printable(json.dumps(entry, default=str))}"
            )
        before = found.get(number)
        special = bool(isinstance(entry, Mapping) and entry.get("special"))
        found[number] = Added(text, special or bool(before and before.special))

    def _mark_named(self, found: dict[int, Added]) -> dict[int, Added]:
        """Mark tokens special that are named bos, eos, ... or additional special tokens."""
        extra = self.config.get("additional_special_tokens")
        texts = set(self.named.values())
        texts |= {content(e) or "" for e in (extra if isinstance(extra, list) else ())}
        for number, added in found.items():
            if added.text in texts:
                found[number] = Added(added.text, True)
        known = {added.text for added in found.values()}
        vocab = (self.json.get("model") or {}).get("vocab")
        if isinstance(vocab, dict):
            for text in texts - known:
                if isinstance(known_as := vocab.get(text), int):
                    found[known_as] = Added(text, True)
        return found

    def chat_template(self) -> str | list[dict[str, str]] | None:
        """Return the chat template, or several named ones, as transformers chooses: files first."""
        jinja = self.folder / "chat_template.jinja"
        more = sorted((self.folder / "additional_chat_templates").glob("*.jinja"))
        more = [path for path in more if path.is_file()]
        files = {p.stem: p for p in more} | ({"default": jinja} if jinja.is_file() else {})
        said = self.config.get("chat_template")
        if files:
            texts = {name: _text(path) for name, path in sorted(files.items())}
            if said and said != texts.get("default"):
                used = next(reversed(files.values())).name
                what = "tokenizer_config.json has another chat template"
                self.warnings.append(f"{printable(used)} is used, {what}")
            if list(texts) == ["default"]:
                return texts["default"]
            return [{"name": name, "template": text} for name, text in texts.items()]
        if said is None:
            said = read_json(self.folder / "chat_template.json").get("chat_template")
        if said is None or isinstance(said, (str, list)):
            return said
        if isinstance(said, dict) and all(isinstance(text, str) for text in said.values()):
            return [{"name": name, "template": text} for name, text in said.items()]
        self.warnings.append("chat_template is neither text nor named texts: left out")
        return None

    def ends(self) -> list[tuple[str, Any]]:
        """Return what the folder calls ends of generation: (file, token id or whatever it says)."""
        found = []
        sources = {"generation_config.json": self.generation, "config.json": self.model_config}
        for file, source in sources.items():
            said = source.get("eos_token_id")
            listed = said if isinstance(said, list) else [said]
            found += [(file, number) for number in listed if number is not None]
        return found
