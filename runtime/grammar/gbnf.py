"""llama.cpp's grammars (GBNF) made ready for llguidance's translator to Lark, and what it lacks.

It reads a grammar's words only: characters by number, and references to tokens. It knows no rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ggq.errors import UsageError, printable

__all__ = ["gbnf_to_lark"]

_WORD = re.compile(
    r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|(?P<ref>!?<(?:\[\d+\]|[^<>\s\[\]][^<>\n]*)>)'
)
_BY_NUMBER = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|.)", re.DOTALL)
_LAST = 0x10FFFF


def gbnf_to_lark(
    text: str, token_id: Callable[[str], int | None], translate: Callable[[str], str]
) -> str:
    """Return a GBNF grammar in Lark.

    ``token_id`` finds tokens by their text; ``translate`` is llguidance's, which knows neither
    \\u00e9 nor references to tokens: these go through it as rules that are replaced afterwards.
    """
    references: dict[str, str] = {}

    def word(match: re.Match[str]) -> str:
        reference = match["ref"]
        if reference is None:
            found = match.group()
            return found if found.startswith("#") else _BY_NUMBER.sub(_character, found)
        return references.setdefault(reference, f"ggq-token-{len(references)}")

    prepared = _WORD.sub(word, text)
    # A rule that names itself is none that the translator makes a part of others.
    rules = "".join(f'\n{name} ::= "x" {name}' for name in references.values())
    lark = translate(f"{prepared}\n{rules}\n" if rules else prepared)
    for reference, name in references.items():
        rule = name.replace("-", "_")
        lark = lark.replace(f'{rule}: "x" {rule}', f"{rule}: {_token(reference, token_id)}")
    return lark


def _character(match: re.Match[str]) -> str:
    digits = next((group for group in match.groups() if group), None)
    if digits is None:
        return match.group()
    code = int(digits, 16)
    if code > _LAST or 0xD800 <= code < 0xE000:
        raise UsageError(f"{printable(match.group())} is no character")
    return chr(code) if code >= 0x80 else f"\\x{code:02x}"


def _token(reference: str, token_id: Callable[[str], int | None]) -> str:
    """Return a token, or with ! any other one, as Lark has it: by its number."""
    inside = reference.lstrip("!")[1:-1]
    number = int(inside[1:-1]) if inside.startswith("[") else token_id(f"<{inside}>")
    if number is None:
        raise UsageError(f"{printable(reference)} is no token of this model")
    return f"<[^{number}]>" if reference.startswith("!") else f"<[{number}]>"
