"""Every published template: the calls that it writes are read back, and a grammar writes them."""

import json

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


M3 = """]<]minimax[>[<tool_call>
]<]minimax[>[<invoke name="f">{}]<]minimax[>[</invoke>
]<]minimax[>[</tool_call>"""
NESTED = {
    "type": "object",
    "properties": {
        "rows": {"type": "array", "items": PLACE},
        "note": STRING,
        "none": {"type": "array", "items": STRING},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "any": {},
    },
}


def element(name, inside):
    return f"]<]minimax[>[<{name}>{inside}]<]minimax[>[</{name}>"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_elements_inside_of_elements(size):
    from ggq.runtime.formats.minimax_m3 import FORMAT

    place = (
        element("street", "A ]<]x") + element("zip", "1") + element("at", element("item", "2.5"))
    )
    inside = element("rows", element("item", place) + element("item", ""))
    inside += element("note", "<b>\n]<]mini") + element("none", "") + element("maybe", "7")
    inside += element("any", element("k", "v"))
    text = M3.format(inside)
    parser = FORMAT.parser({"f": NESTED}, False)
    deltas = [d for i in range(0, len(text), size) for d in parser.push(text[i : i + size])]
    deltas += parser.finish()
    assert {d.kind for d in deltas} == {"call"} and parser.n_calls == 1
    said = "".join(d.call.arguments if d.call else d.text for d in deltas)
    rows = [{"street": "A ]<]x", "zip": "1", "at": [2.5]}, {}]
    assert json.loads(said) == {
        "rows": rows, "note": "<b>\n]<]mini", "none": [], "maybe": 7, "any": {"k": "v"}
    }  # fmt: skip


def test_a_call_of_no_known_tool_stays_text():
    from ggq.runtime.formats.minimax_m3 import FORMAT

    text = M3.format(element("a", "1"))
    parser = FORMAT.parser({"g": {}}, False)
    deltas = [d for c in text for d in parser.push(c)] + parser.finish()
    assert "".join(d.text for d in deltas) == text and parser.n_calls == 0


def test_messages_to_oneself_a_tool_and_the_user():
    from ggq.runtime.formats.muse import FORMAT

    call = (
        ' to=get_weather<|message|><atem:function_calls>\n<atem:invoke name="get_weather">\n'
        '<atem:parameter name="code"> 007</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
    )
    begin = "<|start|>assistant"
    text = f" to=self<|message|>Hm.<|eom|>{begin} to=user<|message|>Let me.<|eom|>{begin}{call}"
    for pieces in ([text], text):
        assert read(FORMAT, pieces, SCHEMA) == ("Hm.", "Let me.", [(TOOL, {"code": " 007"})])
    answer = f" to=self<|message|>Hm.<|eom|>{begin} to=user<|message|>Sunny.<|eot|>"
    assert read(FORMAT, answer, SCHEMA) == ("Hm.", "Sunny.", [])
    segments, thinking = FORMAT.begun("Sun", "Hm.", "", False)
    begun = "".join(s.text for s in segments)
    assert (begun, thinking) == (answer.removesuffix("ny.<|eot|>"), False)
