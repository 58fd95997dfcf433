"""Every published template: the calls that it writes are read back, and a grammar writes them."""

import pytest

pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("llguidance")

from nativecalls import TEMPLATES, TOOL, Bytes, accepted, read, rendered, tool

from ggq.runtime.server.constraints import Constraints
from ggq.runtime.server.schema import ChatBody, Message

TEXT = "She said \"hi\",\n\tto C:\\dir & <b>Zürich 東京</b> </parameter>, </tool_call> {x} [1] 'y'"
STRING = {"type": "string"}
PLACE = {
    "type": "object",
    "properties": {
        "at": {"type": "array", "items": {"type": "number"}},
        "street": STRING,
        "zip": STRING,
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "code": STRING,
        "days": {"type": "integer"},
        "on": {"type": "boolean"},
        "share": {"type": "number"},
        "tags": {"type": "array", "items": STRING},
        "text": STRING,
        "where": PLACE,
    },
    "required": ["code", "days"],
}
SMALL = {"code": "007", "days": 3}
LARGE = {
    **SMALL,
    "on": True,
    "share": 0.5,
    "tags": ["a", "b, c"],
    "text": TEXT,
    "where": {"at": [46.5, 6.25], "street": 'Rue "du" Lac', "zip": "1003"},
}


@pytest.fixture(params=TEMPLATES)
def made(request, shared_dir):
    source = (shared_dir / "templates" / f"{request.param}.jinja").read_text("utf-8")

    def make(*several):
        return rendered(TEMPLATES[request.param], source, SCHEMA, several)

    return TEMPLATES[request.param], make


def test_a_call(made):
    given, make = made
    for arguments in (SMALL, LARGE):
        form, answer, thinking = make(arguments)
        assert form.name == given.form
        for pieces in ([answer], answer):
            assert read(form, pieces, SCHEMA, thinking) == ("", "", [(TOOL, arguments)]), answer


def test_calls_side_by_side(made):
    given, make = made
    if not given.many:
        pytest.skip("the template writes one call")
    form, answer, thinking = make(LARGE, SMALL)
    for pieces in ([answer], answer):
        found = read(form, pieces, SCHEMA, thinking)
        assert found == ("", "", [(TOOL, LARGE), (TOOL, SMALL)]), answer


def test_text_and_thoughts_around(made):
    given, make = made
    if not given.free:
        pytest.skip("thoughts and text are messages of their own")
    form, answer, _ = make(LARGE)
    opening, closing = form.think
    answer = answer.split(closing)[-1] if closing in answer else answer
    whole = f"{opening}Hm, so.{closing}Let me.{answer.lstrip()}"
    want = ("Hm, so.", "Let me.", [(TOOL, LARGE)])
    assert read(form, [whole], SCHEMA) == read(form, whole, SCHEMA) == want
    assert read(form, whole.removeprefix(opening), SCHEMA, True) == want


def test_answers_cut_off(made):
    _, make = made
    form, answer, thinking = make(LARGE)
    whole = read(form, [answer], SCHEMA, thinking, decode=str)[2][0][1]
    for end in range(0, len(answer), 23):
        calls = read(form, answer[:end], SCHEMA, thinking, decode=str)[2]
        assert len(calls) < 2
        for name, arguments in calls:
            assert name == TOOL and whole.startswith(arguments.rstrip('"}] ')), arguments


def test_a_grammar_writes_what_the_template_writes(made):
    given, make = made
    if not given.alike:
        pytest.skip("ids, quotes or line ends differ")
    form, answer, _ = make(*[SMALL] * (1 + given.many))
    body = ChatBody(messages=[Message("user", "x")], tools=[tool(SCHEMA)])
    body.tool_choice, body.parallel_tool_calls = "required", True
    for tokens in (Bytes(()), Bytes(form.marks)):
        grammar = Constraints(tokens, form).of(body, body.tools, False)
        first = grammar()
        starts = [i for i in range(len(answer)) if first.allows(tokens.encode(answer[i:])[0])]
        found = [accepted(grammar(), tokens, answer[i:].rstrip()) for i in starts[:9]]
        text, ends = max(found, key=lambda pair: len(pair[0]))
        assert ends, (text, answer)
        assert read(form, [text], SCHEMA)[2] == [(TOOL, SMALL)] * (1 + given.many)
