"""What a grammar lets through: schemas with references, closed objects, a call or an answer."""

import json
import re
from types import MappingProxyType

import pytest

pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("llguidance")

from ggq.runtime.formats import all_formats
from ggq.runtime.grammar.json_schema import prepared
from ggq.runtime.server.constraints import Constraints
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.schema import ChatBody, Message
from ggq.runtime.server.tools import offered_tools

FORMATS = {form.name: form for form in all_formats()}
END, THINK = 256, 257


class Bytes:
    """A tokenizer of bytes with an end."""

    n_vocab, eos_id, bos_id, eog_ids = 258, END, None, frozenset({END})
    ids = MappingProxyType({"<think>": THINK})

    def token_bytes(self, token):
        return bytes([token]) if token < END else (b"<end>", b"<think>")[token - END]

    def is_control(self, token):
        return token >= END

    def encode(self, text, **more):
        return list(text.encode())


def tool(name, parameters, **more):
    function = {"name": name, "parameters": parameters, **more}
    return {"type": "function", "function": function}


def takes(text, *, form="hermes", tools=(), **more):
    """Return whether the whole of ``text`` is an answer that the request allows."""
    body = ChatBody(messages=[Message("user", "x")], tools=list(tools), **more)
    make = Constraints(Bytes(), FORMATS[form]).of(body, offered_tools(body), False)
    if make is None:
        return True
    return accepts(make(), text.encode())


def accepts(matcher, tokens):
    for token in tokens:
        if not matcher.allows(token):
            return False
        matcher.accept(token)
    return matcher.allows(END)


def hermes(name, arguments):
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{call}\n</tool_call>"


STRING = {"type": "string"}
STREET = {"type": "object", "properties": {"street": STRING}, "required": ["street"]}
NESTED = {
    "$defs": {"Address": STREET},
    "type": "object",
    "properties": {"to": {"$ref": "#/$defs/Address"}},
    "required": ["to"],
}
TREE = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}}}


@pytest.mark.parametrize("form", ["generic", "granite", "hermes", "llama", "mistral"])
@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (NESTED, {"to": {"street": "A"}}, {"to": {"street": 1}}),
        (NESTED, {"to": {"street": "A"}}, {"to": {"street": "A", "zip": "1"}}),
        (TREE, {"v": 1, "next": {"v": 2}}, {"v": 1, "next": {"w": 2}}),
        ({"type": "object"}, {"anything": [1]}, []),
        ({}, {}, None),
    ],
)
def test_references_in_a_tools_schema(form, schema, good, bad):
    def call(arguments):
        member = "parameters" if form == "llama" else "arguments"
        inside = json.dumps({"name": "f", member: arguments})
        marks = {
            "mistral": ("[TOOL_CALLS][", "]"),
            "granite": ("<|tool_call|>[", "]"),
            "hermes": ("<tool_call>\n", "\n</tool_call>"),
        }
        return inside.join(marks.get(form, ("", "")))

    given = {"form": form, "tools": [tool("f", schema)], "tool_choice": "required"}
    assert takes(call(good), **given)
    assert bad is None or not takes(call(bad), **given)


def test_references_in_tags():
    def call(**values):
        parts = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in values.items())
        return f"<tool_call>\n<function=f>\n{parts}</function>\n</tool_call>"

    properties = {"text": STRING, "to": {"$ref": "#/$defs/Address"}, "again": {"$ref": "#"}}
    schema = {**NESTED, "properties": properties, "required": ["text"]}
    given = {"form": "qwen", "tools": [tool("f", schema)], "tool_choice": "required"}
    assert takes(call(text='free "text"\n</parameter> in it'), **given)
    assert takes(call(text="a", to='{"street": "A"}', again='{"text": "b"}'), **given)
    assert not takes(call(to='{"street": "A"}'), **given)
    assert not takes(call(text="a", to='{"street": 1}'), **given)


A = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
B = {"type": "object", "properties": {"b": STRING}}
OPEN = {**A, "additionalProperties": True}


@pytest.mark.parametrize(
    ("schema", "value", "allowed"),
    [
        (A, {"a": 1}, True),
        (A, {"a": 1, "x": 2}, False),
        (OPEN, {"a": 1, "x": 2}, True),
        ({**A, "additionalProperties": STRING}, {"a": 1, "x": "y"}, True),
        ({"type": "array", "items": A}, [{"a": 1, "x": 2}], False),
        ({"anyOf": [A, B]}, {"b": "x"}, True),
        ({"anyOf": [A, B]}, {"b": "x", "c": 1}, False),
        ({"allOf": [A, B]}, {"a": 1, "b": "x"}, True),
        ({"allOf": [A, B]}, {"a": 1, "b": "x", "c": 1}, False),
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": A}}, {"a": 1}, True),
        ({"allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": A}}, {"a": 1, "x": 1}, False),
        ({**B, "allOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": A}}, {"b": "x", "a": 1}, True),
        ({"oneOf": [{"const": 1}, {"enum": [2, 3]}]}, 3, True),
        ({"oneOf": [A, {**B, "required": ["b"]}]}, {"b": "x"}, True),
        ({"type": "object"}, {"x": 1}, True),
        ({"type": "object", "properties": {}}, {}, True),
        ({"type": "object", "properties": {}}, {"x": 1}, False),
    ],
)
def test_objects_are_closed(schema, value, allowed):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert takes(json.dumps(value), response_format=form) == allowed
    assert takes(json.dumps(value), json_schema=schema) == allowed


@pytest.mark.parametrize(
    ("words", "good", "bad"),
    [
        ({"type": "array", "items": STRING, "uniqueItems": False}, ["a", "a"], [1]),
        ({"type": "string", "not": False, "then": {"minLength": 9}}, "a", 1),
        ({"type": "string", "if": {"minLength": 2}}, "a", 1),
        ({"type": "string", "nullable": True}, None, 1),
        ({"type": "string", "nullable": False}, "a", None),
        ({"type": "string", "nullable": True, "enum": ["a"]}, None, "b"),
        ({**STREET, "unevaluatedProperties": False}, {"street": "a"}, {"street": "a", "b": 1}),
        ({**STREET, "unevaluatedProperties": True}, {"street": "a"}, {"street": 1}),
        ({**STREET, "minProperties": 0, "dependentRequired": {}}, {"street": "a"}, {}),
        ({"type": "object", "propertyNames": {}}, {"b": 1}, []),
    ],
)
def test_words_that_ask_for_nothing_or_are_known_by_another_name(words, good, bad):
    schema = {"type": "object", "properties": {"a": words}, "required": ["a"]}
    given = {"tools": [tool("f", schema)], "tool_choice": "required"}
    assert takes(hermes("f", {"a": good}), **given)
    assert not takes(hermes("f", {"a": bad}), **given)


def test_the_schema_given_is_not_touched():
    before = json.dumps(NESTED)
    assert prepared(NESTED, "tools")["$defs"]["Address"]["additionalProperties"] is False
    assert json.dumps(NESTED) == before


FORM = {"type": "json_schema", "json_schema": {"schema": A}}


def test_a_call_or_the_format():
    given = {"tools": [tool("f", B)], "response_format": FORM}
    assert takes('{"a": 1}', **given) and takes(hermes("f", {"b": "x"}), **given)
    assert not takes("free text", **given)
    assert not takes('{"a": 1}', **given, tool_choice="required")
    assert takes(hermes("f", {"b": "x"}), **given, tool_choice="required")
    assert not takes(hermes("f", {"b": "x"}), tools=[], response_format=FORM)


def test_several_calls():
    two = [tool("f", B), tool("g", A)]
    both = hermes("f", {"b": "x"}) + "\n" + hermes("g", {"a": 1})
    given = {"tools": two, "tool_choice": "required"}
    assert takes(both, **given, parallel_tool_calls=True)
    assert not takes(both, **given, parallel_tool_calls=False) and not takes(both, **given)
    named = {"type": "function", "function": {"name": "f"}}
    one = {"tools": two, "tool_choice": named, "parallel_tool_calls": True}
    assert takes(hermes("f", {}), **one) and not takes(hermes("g", {"a": 1}), **one)


@pytest.mark.parametrize(
    "word",
    [
        *(
            {"uniqueItems": True},
            {"not": {}},
            {"if": {}, "then": {}},
            {"propertyNames": {"maxLength": 3}},
        ),
        {"oneOf": [{"minItems": 1}, {"maxItems": 3}]},
    ],
)
def test_words_that_no_grammar_has(word):
    schema = {"type": "array", "items": {"type": "integer"}, **word}
    if "propertyNames" in word:
        schema = {"type": "object", **word}
    value = "[1, 1]" if schema["type"] == "array" else '{"a": 1}'
    wrapper = {"schema": schema}
    with pytest.raises(APIError, match=next(iter(word))):
        takes(value, response_format={"type": "json_schema", "json_schema": wrapper})
    lenient = {"type": "json_schema", "json_schema": {**wrapper, "strict": False}}
    assert takes(value, response_format=lenient)
    whole = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    call = hermes("f", {"x": json.loads(value)})
    with pytest.raises(APIError, match=next(iter(word))):
        takes(call, tools=[tool("f", whole)], tool_choice="required")
    assert takes(call, tools=[tool("f", whole, strict=False)], tool_choice="required")


ITSELF = {"$ref": "#/$defs/a"}
LIST = {"type": "object", "properties": {"next": ITSELF, "v": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"$ref": "#"}, "never comes to an end"),
        ({**ITSELF, "$defs": {"a": ITSELF}}, "never comes to an end"),
        ({**ITSELF, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": ITSELF}}, "never comes to an end"),
        ({**ITSELF, "$defs": {"a": {"allOf": [ITSELF]}}}, "never comes to an end"),
        ({**ITSELF, "$defs": {"a": {**LIST, "required": ["next"]}}}, "never comes to an end"),
        ({"type": "object", "properties": {"x": {"$ref": "#/properties/x"}}}, "'#/properties/x'"),
        ({**ITSELF, "$defs": {"a": {"type": "array", "items": ITSELF, "minItems": 1}}}, "an end"),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(1001)}}, "1,001 properties"),
        ({"type": "string", "format": "colour"}, "colour"),
    ],
)
def test_schemas_that_no_grammar_holds(schema, told):
    """One line before any work, also where a tool asks."""
    with pytest.raises(APIError, match=re.escape(told)) as error:
        takes("1", response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert "\n" not in str(error.value)
    with pytest.raises(APIError, match=re.escape(told)):
        takes(hermes("f", {}), tools=[tool("f", schema)], tool_choice="required")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({**ITSELF, "$defs": {"a": LIST}}, '{"next": {"v": 1}}'),
        ({**ITSELF, "$defs": {"a": {"anyOf": [{"type": "null"}, {"items": ITSELF}]}}}, "[null]"),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(1000)}}, '{"p7": 1}'),
    ],
)
def test_schemas_that_only_look_endless(schema, value):
    wrapper = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert takes(value, response_format=wrapper)


def gbnf(text):
    body = ChatBody(messages=[Message("user", "x")], grammar=text)
    return Constraints(Bytes(), FORMATS["hermes"]).of(body, [], False)


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (r'root ::= "caf\u00e9"', "café", "cafe"),
        (r'root ::= "\U0001F600" | "\xe9"', "😀", "e"),
        (r"root ::= [\u00e0-\u00ff]+", "éü", "e"),
        (r"root ::= [^\u00e0-\u00ff]+", "abc", "é"),
        (r'root ::= "\u0022" [\u005d\u005c] "\u0022"', '"]"', '"["'),
        (r'root ::= "a<b>" # <c> \u00e9', "a<b>", "a"),
        (r'root ::= "\\u00e9"', r"\u00e9", "é"),
    ],
)
def test_characters_by_number(grammar, good, bad):
    make = gbnf(grammar)
    assert accepts(make(), good.encode()) and not accepts(make(), bad.encode())


@pytest.mark.parametrize("reference", ["<think>", f"<[{THINK}]>"])
def test_tokens_by_reference(reference):
    make = gbnf(f'root ::= {reference} "a" {reference}? | "b"')
    assert accepts(make(), [THINK, ord("a")]) and accepts(make(), [THINK, ord("a"), THINK])
    assert accepts(make(), b"b") and not accepts(make(), b"<think>a")
    other = gbnf(f"root ::= !{reference} {reference}")
    assert accepts(other(), [ord("z"), THINK]) and not accepts(other(), [THINK, THINK])


@pytest.mark.parametrize("grammar", ["root ::= <nothing>", r'root ::= "\ud800"'])
def test_what_is_no_token_and_no_character(grammar):
    with pytest.raises(APIError, match=r"grammar: .* is no (token|character)"):
        gbnf(grammar)


def test_an_answer_begun_is_held_to_its_format():
    def of(begun):
        body = ChatBody(messages=[Message("user", "x")], response_format=FORM)
        return Constraints(Bytes(), FORMATS["hermes"]).of(body, [], False, begun)

    make = of('{"a": ')
    assert accepts(make(), b"12}") and not accepts(make(), b'{"a": 12}')
    with pytest.raises(APIError, match="the answer begun"):
        of('{"b": ')


MIXED = {
    "$defs": {"Address": STREET},
    "type": "object",
    "properties": {"b": {"type": "boolean"}, "s": STRING, "to": {"$ref": "#/$defs/Address"}},
    "required": ["s"],
}
FORCED = {
    "glm": (
        "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>a</b</arg_value>\n</tool_call>",
        "<tool_call>f\n<arg_key>b</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
    ),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>"
        '{"s": "x", "to": {"street": "y"}}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>"
        '{"to": {"street": "y"}}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "lfm2": (
        '<|tool_call_start|>[f(s="x", b=True, to={"street": "y"})]<|tool_call_end|>',
        "<|tool_call_start|>[f(b=True)]<|tool_call_end|>",
    ),
}


@pytest.mark.parametrize("form", FORCED)
def test_forced_calls_are_read_back(form):
    good, bad = FORCED[form]
    given = {"form": form, "tools": [tool("f", MIXED)], "tool_choice": "required"}
    assert takes(good, **given) and not takes(bad, **given)
    parser = FORMATS[form].parser({"f": MIXED}, False)
    deltas = parser.push(good) + parser.finish()
    assert [d.kind for d in deltas] == ["call"] and json.loads(deltas[0].call.arguments)["s"]


def test_arguments_in_python_with_commas():
    free = {**MIXED, "required": []}
    given = {"form": "lfm2", "tools": [tool("f", free)], "tool_choice": "required"}
    for inside, fine in (
        ("", 1),
        ("b=True", 1),
        ('s="x"', 1),
        ('b=False, s="x"', 1),
        (', s="x"', 0),
    ):
        assert takes(f"<|tool_call_start|>[f({inside})]<|tool_call_end|>", **given) == bool(fine)
