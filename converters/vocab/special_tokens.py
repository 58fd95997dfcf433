"""Special token ids, whether BOS and EOS are added, chat templates: as GGUF keys.

The rules follow gguf-py's SpecialVocab, so that files are the same; ends of generation count from
every file that names them. It does not know tokens' texts beyond these.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_letters, digits
from typing import Any, NamedTuple

from ggq.converters.vocab.tokenizer_files import NAMED, TokenizerFiles
from ggq.errors import printable
from ggq.gguf import spec
from ggq.runtime.template.template import ChatTemplate
from ggq.runtime.tokenizers.specials import end_names

KEYS = {  # the keys that GGUF has; there is none for CLS, BERT's is BOS
    "bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id",
    "sep": "seperator_token_id", "pad": "padding_token_id", "mask": "mask_token_id",
    "eot": "eot_token_id", "eom": "eom_token_id",
}  # fmt: skip
PREFIX = "tokenizer.ggml."
ENDS = ("eos", "eot", "eom")  # every reader stops at these


class MetadataItem(NamedTuple):
    """One key to write; ``type`` is a GGUF value type, that of the items for a list."""

    key: str
    value: Any
    type: int


class Specials:
    """Special tokens of one folder: ``texts`` by name, ``ids`` by name, ``add`` flags by name."""

    def __init__(self, files: TokenizerFiles) -> None:
        self.files = files
        self.texts: dict[str, str] = {}
        self.ids: dict[str, int] = {}
        self.add: dict[str, bool] = {}
        for name in NAMED:  # tokenizer_config.json's, else special_tokens_map.json's
            if name in files.named:
                self.texts[name] = files.named[name]
        if files.json:
            self._fall_back("bos", "cls")
            self._fall_back("eos", "sep")
            self._read_post_processor(files.json.get("post_processor"))
        for name in (*NAMED, "eot", "eom"):
            flag = files.config.get(f"add_{name}_token")
            if isinstance(flag, bool):
                self.add.setdefault(name, flag)

    def _fall_back(self, name: str, other: str) -> None:
        if not self.texts.get(name) and other in self.texts:
            self.texts[name] = self.texts[other]

    def _read_post_processor(self, post: Any) -> None:
        """Learn from the post-processor which tokens go around a text."""
        if not isinstance(post, Mapping):
            return
        for part in post.get("processors") or [post]:
            kind = part.get("type")
            if kind == "ByteLevel":
                self.add.setdefault("bos", False)
                self.add.setdefault("eos", False)
            elif kind == "RobertaProcessing":
                self.add |= {"bos": True, "eos": True, "sep": True}
                for name, default in (("cls", "bos"), ("sep", "eos")):
                    pair = part.get(name) or [self.texts.get(default, "")]
                    self.texts.setdefault(name, str(pair[0]))
            elif kind == "TemplateProcessing":
                self._read_template(part.get("single") or [], part.get("pair") or [])

    def _read_template(self, single: list[Any], pair: list[Any]) -> None:
        first = last = None
        if len(single) > 1:
            if first := _special(single[0]):
                for name in ("bos", "cls"):
                    if first not in (self.texts.get("bos"), self.texts.get("cls")):
                        self.texts.setdefault(name, first)
                self.add["bos"] = first in (self.texts.get("bos"), self.texts.get("cls"))
            if last := _special(single[-1]):
                self._make_last_eos(last)
                self.add["eos"] = True
        around = [[_special(part) for part in side if _special(part)] for side in _sides(single)]
        if max(map(len, around)) > 1 or (first and first != self.texts.get("bos")):
            before, after = (" ".join(filter(None, side)) or "nothing" for side in around)
            what = f"puts {printable(before)} before a text and {printable(after)} after it"
            kept = " and ".join(n.upper() for n in ("bos", "eos") if self.add.get(n)) or "neither"
            self.files.warnings.append(f"tokenizer.json {what}, the file {kept}")
        if pair:
            self._read_pair(pair, first, last)

    def _make_last_eos(self, last: str) -> None:
        """What closes a text is EOS; a different EOS of the config becomes end of turn."""
        before = self.texts.get("eos")
        if before is not None and before != last:
            name = "eot" if "eot" not in self.texts else "eom"
            self.texts.setdefault(name, before)
        self.texts["eos"] = last

    def _read_pair(self, pair: list[Any], first: str | None, last: str | None) -> None:
        """Learn from the template of a pair whether a separator goes between its texts."""
        start = 1 if first and _special(pair[0]) == first else 0
        stop = -1 if last and _special(pair[-1]) == last else None
        middle = pair[start:stop]
        if len(middle) < 3 or _sequence(middle[0]) != "A" or _sequence(middle[-1]) != "B":
            return
        between = [_special(part) for part in middle[1:-1]]
        closers = (self.texts.get("sep"), self.texts.get("eos"))
        add = between[0] is not None and between[0] in closers and not last
        add = add or (len(between) == 2 and between[1] is not None and between[1] in closers)
        self.add["sep"] = add
        if add and "eos" in self.texts:
            self.texts.setdefault("sep", self.texts["eos"])

    def resolve(self, tokens: list[str]) -> None:
        """Find the ids: by text among added tokens, else config.json's; BOS and EOS by any text."""
        added = {a.text: i for i, a in reversed(self.files.added.items())}
        for name in (*NAMED, "eot", "eom"):
            number: Any = added.get(self.texts[name]) if name in self.texts else None
            if number is None:
                number = self.files.model_config.get(f"{name}_token_id")
            text = self.texts.get(name)
            if not isinstance(number, int) and name in ("bos", "eos") and text:
                if text not in tokens:
                    what = f"{name}_token {printable(text, 40)} is no token"
                    self.files.warnings.append(f"{what}: left out")
                    continue
                number = tokens.index(text)
            if isinstance(number, bool) or not isinstance(number, int):
                continue
            if 0 <= number < len(tokens):
                self.ids[name] = number
                if name in ("bos", "eos") and text and text not in tokens:
                    what = f"{name}_token {printable(text, 40)} is no token"
                    self.files.warnings.append(f"{what}: config.json's {number} is taken")
            else:
                self.files.warnings.append(f"{name}_token_id {number} is no token: left out")
        self._more_ends(tokens)

    def _more_ends(self, tokens: list[str]) -> None:
        """Ends of generation beyond EOS that readers would not know by name become EOT and EOM."""
        by_name = end_names({text: i for i, text in enumerate(tokens)})
        for file, number in self.files.ends():
            if isinstance(number, bool) or not isinstance(number, int):
                what = printable(repr(number), 40)
                self.files.warnings.append(f"{file}: eos_token_id {what} is no number: left out")
                continue
            if not 0 <= number < len(tokens):
                self.files.warnings.append(f"{file}: eos_token_id {number} is no token: left out")
                continue
            if number in {self.ids.get(n) for n in ENDS} or tokens[number] in by_name:
                continue
            name = next((n for n in ENDS if n not in self.ids), None)
            if name is None:
                self.files.warnings.append(f"{file}: no key is left for eos_token_id {number}")
                return
            self.ids[name] = number

    def items(self) -> list[MetadataItem]:
        """Return ids and flags as keys."""
        known = [(name, number) for name, number in self.ids.items() if name in KEYS]
        ids = [MetadataItem(PREFIX + KEYS[name], number, spec.U32) for name, number in known]
        adds = [name for name in ("bos", "eos", "sep") if name in self.add]
        return ids + [MetadataItem(f"{PREFIX}add_{n}_token", self.add[n], spec.BOOL) for n in adds]


def _special(part: Mapping[str, Any]) -> str | None:
    return (part.get("SpecialToken") or {}).get("id")


def _sides(single: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return what a template has before and behind its text."""
    at = next((i for i, part in enumerate(single) if _sequence(part)), len(single))
    return single[:at], single[at + 1 :]


def _sequence(part: Mapping[str, Any]) -> str | None:
    return (part.get("Sequence") or {}).get("id")


def template_items(files: TokenizerFiles) -> list[MetadataItem]:
    """Return the chat template, or each named one, as keys."""
    template = files.chat_template()
    key = "tokenizer.chat_template"
    if template is None:
        return []
    if isinstance(template, str):
        _tell_of_problem(files, ChatTemplate(template))
        return [MetadataItem(key, template, spec.STR)]
    named: dict[str, str] = {}
    for choice in template:
        name, text = choice.get("name"), choice.get("template")
        if isinstance(name, str) and isinstance(text, str) and name:
            allowed = ascii_letters + digits
            named["".join(c if c in allowed else "_" for c in name)] = text
        else:
            files.warnings.append(f"chat_template: entry {printable(name)} left out")
    _tell_of_problem(files, ChatTemplate("", variants=named))
    default = named.pop("default", None)
    items = [MetadataItem(f"{key}.{n}", text, spec.STR) for n, text in named.items()]
    if named:
        items.append(MetadataItem(f"{key}s", sorted(named), spec.STR))
    if default is not None:
        items.append(MetadataItem(key, default, spec.STR))
    return items


def _tell_of_problem(files: TokenizerFiles, template: ChatTemplate) -> None:
    if problem := template.problem():
        files.warnings.append(f"{problem}: conversations with the file will be refused")


def normalizer_items(files: TokenizerFiles) -> list[MetadataItem]:
    """Return what a lower-casing or accent-stripping normalizer means as keys."""
    found: dict[str, bool] = {}
    _read_normalizer(files.json.get("normalizer"), found)
    return [MetadataItem(f"{PREFIX}normalizer.{k}", v, spec.BOOL) for k, v in found.items()]


def _read_normalizer(normalizer: Any, found: dict[str, bool]) -> None:
    if not isinstance(normalizer, Mapping):
        return
    kind = normalizer.get("type")
    if kind == "Lowercase":
        found["lowercase"] = True
    elif kind == "StripAccents":
        found["strip_accents"] = True
    elif kind == "BertNormalizer":
        found["lowercase"] = normalizer.get("lowercase", True) is True
        if isinstance(strip := normalizer.get("strip_accents"), bool):
            found["strip_accents"] = strip
    elif kind == "Sequence":
        for part in normalizer.get("normalizers") or ():
            _read_normalizer(part, found)
