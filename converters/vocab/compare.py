"""Does the tokenizer that goes into the GGUF encode as the folder's own one?

Both encode a text in many scripts, and the first difference is reported. It does not know how
either was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ggq.errors import GGQError, printable
from ggq.runtime.tokenizers import tokenizer_from_gguf

TEXT = """The quick brown fox can't jump; it's we'd, THEY'LL, I'M, you're. "Quoted", (brackets)!?
Numbers 7 42 365 2024 1234567 3.14159 1,000,000 0x7F 50% -12 +7 1/2 ½ ² ٣٤٥ १२३
  two spaces,   three,    four\tand a tab\t\ttwice, then a trailing blank \n\n\n\r\nand new lines
def camelCase(snake_case: int = 0) -> list[str]:\n    return [f"{x!r}" for x in range(10)]  # done
HTTPServer https://example.org/a?b=c&d=%20e user@example.com #tag @name $5.00 €9,99 C++ i++ a==b
Ünïcödé naïve café, Straße, œuvre, Łódź, İstanbul, smörgåsbord, año, façade, Århus
Tiếng Việt có dấu, e\u0301 and a\u0308 decomposed; ﬁ ligature, ﬀ, №, ™, …, “a” ‘b’ — c –
Быстрая лиса прыгает. Швидка лисиця. Η γρήγορη αλεπού. مرحبا بالعالم، كيف الحال؟ שלום עולם
नमस्ते दुनिया, বাংলা ভাষা, தமிழ், తెలుగు, ไทยไม่มีช่องว่าง, ភាសាខ្មែរ, ქართული, հայերեն, አማርኛ
我想在apple工作1314151天～。「こんにちは世界」カタカナ、ひらがな。안녕하세요 세계! 한국어
🚀 😶\u200d🌫️ 👩🏽\u200d💻 🇺🇳 ✅ 🦙🦙 \u200b zero width \u00a0no-break\u00a0 \u3000wide ∑∫√ ≠ ∀x∈ℝ ♥
======== ------ ...... !!!!!! ''''' \"\"\"\" `````` <tag attr="v"/> {{x}} [[y]] \\n \\\\ ~~~ ^^ ||
"""


def first_difference(
    metadata: Mapping[str, Any], reference: Callable[[str], list[int]], text: str = TEXT
) -> str | None:
    """Return where the tokenizer of GGUF ``metadata`` departs from ``reference``, None if nowhere.

    ``reference`` returns ids without BOS and EOS. The line at fault is named with both ids.
    """
    try:
        tokenizer = tokenizer_from_gguf(metadata)
    except GGQError as error:
        return str(error)
    if tokenizer.encode(text, add_special=False) == reference(text):
        return None
    for line in [*text.splitlines(keepends=True), text]:
        ours, theirs = tokenizer.encode(line, add_special=False), reference(line)
        if ours != theirs:
            return _describe(tokenizer.tokens, line, ours, theirs)
    return None


def _describe(tokens: list[str], line: str, ours: list[int], theirs: list[int]) -> str:
    at = next(
        (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
        min(len(ours), len(theirs)),
    )

    def show(ids: list[int]) -> str:
        found = ids[at : at + 3]
        names = [printable(tokens[i]) if i < len(tokens) else "?" for i in found]
        return " ".join(f"{i} '{name}'" for i, name in zip(found, names, strict=True))

    return f"in '{printable(line, 60)}' token {at}: {show(ours)} instead of {show(theirs)}"
