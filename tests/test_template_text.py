"""Strings with marks: capitals are own, all else foreign, and every operation keeps it so."""

import random

import pytest

from ggq.runtime.template.text import FOREIGN, OWN, Text, format_text, join, join_checked, mask_of

ALPHABET = "AAB aab\n"


def marked(text):
    """Return text whose capitals are own and all else foreign."""
    return Text(text, b"".join(OWN if c.isupper() else FOREIGN for c in text))


def is_true(text):
    return all(mark == char.isupper() for char, mark in zip(str(text), mask_of(text), strict=True))


def word(rng, longest=4):
    return "".join(rng.choices(ALPHABET, k=rng.randint(0, longest)))


def operand(rng):
    """Return a string as templates hold them: marked, or plain and then without capitals."""
    text = word(rng)
    return marked(text) if rng.random() < 0.5 else text.lower()


OPERATIONS = [
    lambda t, r: t + operand(r),
    lambda t, r: operand(r) + t,
    lambda t, r: t * r.randint(0, 3),
    lambda t, r: r.randint(0, 3) * t,
    lambda t, r: t[r.randint(-5, 5) : r.randint(-5, 5)],
    lambda t, r: t[:: r.choice([-2, -1, 1, 2])],
    lambda t, r: t[r.randrange(len(t))] if t else t,
    lambda t, r: t.strip(),
    lambda t, r: t.lstrip(word(r, 2) or None),
    lambda t, r: t.rstrip(word(r, 2) or None),
    lambda t, r: t.removeprefix(word(r, 2)),
    lambda t, r: t.removesuffix(word(r, 2)),
    lambda t, r: r.choice(t.split() or [t]),
    lambda t, r: r.choice(t.split(word(r, 3) or "A", r.randint(-1, 2))),
    lambda t, r: r.choice(t.rsplit(word(r, 3) or "a", r.randint(-1, 2))),
    lambda t, r: r.choice(t.rsplit(None, r.randint(-1, 2)) or [t]),
    lambda t, r: r.choice(t.splitlines(r.random() < 0.5) or [t]),
    lambda t, r: r.choice(t.partition(word(r, 3) or "b")),
    lambda t, r: r.choice(t.rpartition(word(r, 3) or "B")),
    lambda t, r: t.replace(word(r, 3) or "a", operand(r), r.randint(-1, 2)),
    lambda t, r: t.join([operand(r) for _ in range(r.randint(0, 3))]),
    lambda t, r: join([operand(r), t, operand(r)], operand(r)),
    lambda t, r: join(list(t)),
    lambda t, r: str(t),
    lambda t, r: format_text("{}", lambda name: t),
]


@pytest.mark.parametrize("seed", range(40))
def test_marks_follow_their_characters(seed):
    rng = random.Random(seed)
    for _ in range(100):
        text = marked(word(rng, 12))
        for operation in rng.choices(OPERATIONS, k=3):
            result = operation(text, rng)
            assert isinstance(result, Text)
            assert is_true(result), (text, mask_of(result))
            text = result


@pytest.mark.parametrize("seed", range(20))
def test_text_behaves_like_str(seed):
    """The same operations on plain strings give the same characters."""
    for number, operation in enumerate(OPERATIONS[:-4]):
        source = word(random.Random(seed * 99 + number), 12)
        with_marks = operation(marked(source), random.Random(seed))
        plain = operation(source, random.Random(seed))
        assert str.__str__(with_marks) == plain, number


def test_case_changes_keep_marks_where_lengths_agree():
    text = Text("aB", OWN + FOREIGN)
    for changed in (text.upper(), text.lower(), text.title(), text.capitalize()):
        assert changed.mask == OWN + FOREIGN
    assert Text.own("ß").upper().mask == FOREIGN * 2


def test_what_is_not_followed_is_foreign():
    own = Text.own("own %s")
    for lost in (own % "x", own.swapcase(), own.center(20), own.replace("", "x"), f"{own:>9}"):
        assert FOREIGN * len(lost) == mask_of(lost)


def test_format_keeps_marks():
    fields = {"a": "foreign", "b": Text.own("own"), "c": 3}
    text = format_text(Text.own("<{a}|{b}|{c:>3}|{{}}>"), fields.__getitem__)
    assert text == "<foreign|own|  3|{}>"
    assert text.mask == OWN + FOREIGN * 7 + OWN + OWN * 3 + OWN + FOREIGN * 3 + OWN * 4
    assert mask_of(format_text("<{a}>", fields.__getitem__)) == FOREIGN * 9
    for wide in ("{a:>1000}", "{a:{b}}", "{c:.99999f}"):
        with pytest.raises(ValueError, match="asks for too much"):
            format_text(wide, fields.__getitem__)


def test_join_asks_for_its_size_first():
    asked = []
    assert join_checked(["ab", "c"], "--", asked.append) == "ab--c"
    assert join_checked([], "--", asked.append) == ""
    assert asked == [5, 0]
