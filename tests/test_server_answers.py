"""Answers as models write them, cut anywhere: thoughts, content and calls come out the same."""

import json
import random

import pytest

from ggq.runtime.formats import all_formats, choose_format
from ggq.runtime.server.answer import make_parser

BY_NAME = {form.name: form for form in all_formats()}
GENERIC, HARMONY, HERMES, LLAMA, MISTRAL = (
    BY_NAME[name] for name in ("generic", "harmony", "hermes", "llama", "mistral")
)
GLM, DEEPSEEK, GRANITE, LFM2 = (BY_NAME[n] for n in ("glm", "deepseek", "granite", "lfm2"))
CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
ONE, SEP, ONE_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
TOOLS = ("get_weather", "add")
WEATHER = ("get_weather", {"city": "Bern"})
ADD = ("add", {"a": 1, "b": [2, {"c": "}"}]})
CALL = '{"name": "get_weather", "arguments": {"city": "Bern"}}'
CALL_2 = '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}'
CASES = {
    "plain": (HERMES, "Hello <b>you</b> <tool", ("", "Hello <b>you</b> <tool", [])),
    "hermes": (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", ("", "", [WEATHER])),
    "two": (
        HERMES,
        f"Sure.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL_2}\n</tool_call>",
        ("", "Sure.", [WEATHER, ADD]),
    ),
    "unclosed": (HERMES, f"<tool_call>\n{CALL}", ("", "", [WEATHER])),
    "broken json": (
        HERMES,
        '<tool_call>{"name": "add", </tool_call> so',
        ("", '<tool_call>{"name": "add", </tool_call> so', []),
    ),
    "unknown tool": (
        HERMES,
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        ("", '<tool_call>{"name": "rm", "arguments": {}}</tool_call>', []),
    ),
    "coder": (
        HERMES,
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nBern\n</parameter>\n</function>\n"
        "</tool_call>",
        ("", "", [WEATHER]),
    ),
    "thoughts": (
        HERMES,
        f"<think>\nA city.\n</think>\n\nSo:<tool_call>{CALL}</tool_call>",
        ("A city.", "So:", [WEATHER]),
    ),
    "mark in text": (HERMES, "Write <think> and </think>", ("", "Write <think> and </think>", [])),
    "llama": (
        LLAMA,
        '{"name": "get_weather", "parameters": {"city": "Bern"}}',
        ("", "", [WEATHER]),
    ),
    "llama several": (
        LLAMA,
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Bern"}}; ' + CALL_2,
        ("", "", [WEATHER, ADD]),
    ),
    "llama json": (LLAMA, '{"answer": 42} done', ("", '{"answer": 42} done', [])),
    "mistral": (MISTRAL, f"[TOOL_CALLS][{CALL}, {CALL_2}]", ("", "", [WEATHER, ADD])),
    "mistral named": (
        MISTRAL,
        '[THINK]Hm.[/THINK][TOOL_CALLS]get_weather[ARGS]{"city": "Bern"}[TOOL_CALLS]add'
        '[CALL_ID]123456789[ARGS]{"a": 1, "b": [2, {"c": "}"}]}',
        ("Hm.", "", [WEATHER, ADD]),
    ),
    "harmony": (
        HARMONY,
        "<|channel|>analysis<|message|>Think < hard.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Bern"}<|call|>',
        ("Think < hard.", "", [WEATHER]),
    ),
    "harmony final": (
        HARMONY,
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>"
        "1 < 2 <| 3<|return|>",
        ("Easy.", "1 < 2 <| 3", []),
    ),
    "harmony recipient in role": (
        HARMONY,
        " to=functions.get_weather<|channel|>commentary json<|message|>"
        '{"city": "Bern"}<|call|>',
        ("", "", [WEATHER]),
    ),
    "generic": (GENERIC, f"\n{CALL}", ("", "", [WEATHER])),
    "glm": (
        GLM,
        "So.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bern</arg_value>\n"
        "</tool_call>\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n"
        '<arg_key>b</arg_key>\n<arg_value>[2, {"c": "}"}]</arg_value>\n</tool_call>',
        ("", "So.", [WEATHER, ADD]),
    ),
    "glm, nothing known": (
        GLM,
        "<tool_call>rm\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        ("", "<tool_call>rm\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>", []),
    ),
    "glm, no arguments": (GLM, "<tool_call>add\n</tool_call>", ("", "", [("add", {})])),
    "deepseek": (
        DEEPSEEK,
        f'<think>Hm.</think>So.{CALLS}{ONE}get_weather{SEP}{{"city": "Bern"}}{ONE_END}'
        f'{ONE}add{SEP}{{"a": 1, "b": [2, {{"c": "}}"}}]}}{ONE_END}{CALLS_END}',
        ("Hm.", "So.", [WEATHER, ADD]),
    ),
    "deepseek r1": (
        DEEPSEEK,
        f'{CALLS}{ONE}function{SEP}get_weather\n```json\n{{"city": "Bern"}}\n```{ONE_END}'
        f"{CALLS_END}",
        ("", "", [WEATHER]),
    ),
    "granite": (GRANITE, f"<|tool_call|>[{CALL}, {CALL_2}]", ("", "", [WEATHER, ADD])),
    "lfm2": (
        LFM2,
        "So.<|tool_call_start|>[get_weather(city='Bern'), add(a=1, b=[2, {\"c\": \"}\"}])]"
        "<|tool_call_end|>",
        ("", "So.", [WEATHER, ADD]),
    ),
    "lfm2, a mark in a string": (
        LFM2,
        '<|tool_call_start|>[get_weather(city="<|tool_call_end|>")]<|tool_call_end|>',
        ("", "", [("get_weather", {"city": "<|tool_call_end|>"})]),
    ),
    "minimax": (
        BY_NAME["minimax"],
        'So.<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Bern'
        "</parameter>\n</invoke>\n</minimax:tool_call>",
        ("", "So.", [WEATHER]),
    ),
    "kimi k3": (
        BY_NAME["kimi_k3"],
        "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>So.<|close|>response"
        '<|sep|><|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>'
        '<|open|>argument key="city" type="string"<|sep|>Bern<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>",
        ("Hm.", "So.", [WEATHER]),
    ),
    "olmo 3": (
        BY_NAME["olmo3"],
        'So.<function_calls>get_weather(city="Bern")\nadd(a=1, b=[2, {"c": "}"}])</function_calls>',
        ("", "So.", [WEATHER, ADD]),
    ),
    "functionary 3.2": (
        BY_NAME["functionary_v32"],
        'all\nSo > 1.>>>get_weather\n{"city": "Bern"}>>>rm\n{}',
        ("", "So > 1.rm\n{}", [WEATHER]),
    ),
    "phi": (BY_NAME["phi"], f"<|tool_call|>[{CALL}]<|/tool_call|>", ("", "", [WEATHER])),
    "granite's response": (
        GRANITE,
        "<think>Hm.</think><response>A </response> mark.</response>\n",
        ("Hm.", "A </response> mark.", []),
    ),
    "solar": (
        BY_NAME["solar"],
        "<|think|>Hm.<|end|><|begin|>assistant<|content|>So.<|end|><|begin|>assistant<|tool_calls|>"
        '<|tool_call:begin|>a<|tool_call:name|>get_weather<|tool_call:args|>{"city": "Bern"}'
        "<|tool_call:end|><|calls|>",
        ("Hm.", "So.", [WEATHER]),
    ),
    "gemma 4, words and quotes": (
        BY_NAME["gemma4"],
        '<|tool_call>call:get_weather{city: "Bern"}<tool_call|><|tool_call>call:add{a:1,b:[2,'
        '{<|"|>c<|"|>:<|"|>}<|"|>}]}<tool_call|>',
        ("", "", [WEATHER, ADD]),
    ),
    "lfm2, no call": (
        LFM2, "<|tool_call_start|>[1]<|tool_call_end|>!",
        ("", "<|tool_call_start|>[1]<|tool_call_end|>!", []),
    ),
}  # fmt: skip


def parsed(form, pieces, tools=TOOLS, thinking=False):
    parser = make_parser(form, tools, thinking)
    deltas = [d for piece in pieces for d in parser.push(piece)] + parser.finish()
    calls = [d for d in deltas if d.call]
    assert [d.index for d in calls] == list(range(len(calls)))
    assert len({d.id for d in calls}) == len(calls)
    arguments = [d.call.arguments for d in calls]
    for d in deltas:
        if d.kind == "call":
            assert d.id == calls[d.index].id
            arguments[d.index] += d.text
    texts = ["".join(d.text for d in deltas if d.kind == kind) for kind in ("reasoning", "content")]
    names = [d.call.name for d in calls]
    return (*texts, list(zip(names, map(json.loads, arguments), strict=True)))


@pytest.mark.parametrize("name", CASES)
def test_answers_cut_anywhere(name):
    form, text, expected = CASES[name]
    assert parsed(form, [text]) == expected
    assert parsed(form, text) == expected  # a character at a time
    rng = random.Random(name)
    for _ in range(30):
        cuts = sorted(rng.sample(range(len(text)), 4))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert parsed(form, pieces) == expected


def test_without_tools_calls_are_text():
    text = f"<tool_call>{CALL}</tool_call>"
    assert parsed(HERMES, [text], tools=()) == ("", text, [])
    assert parsed(LLAMA, [CALL], tools=()) == ("", CALL, [])


def test_thoughts_that_the_prompt_opened():
    assert parsed(HERMES, "hm\n</think>\n\nYes.", thinking=True) == ("hm\n".strip(), "Yes.", [])
    assert parsed(HERMES, "never closed", thinking=True) == ("never closed", "", [])


def test_text_flows_while_it_comes():
    parser = make_parser(HERMES, TOOLS)
    assert [d.text for d in parser.push("Hello ")] == ["Hello"]
    assert [d.text for d in parser.push("you <")] == [" you"]
    assert [d.text for d in parser.push("b>")] == [" <b>"]
    free = make_parser(HERMES)
    assert [d.text for d in free.push("Hello ")] == ["Hello"]
    assert [d.text for d in free.push("you \n<tool_call>")] == [" you \n<tool_call>"]


def test_format_of_a_model(shared_dir):
    expected = {
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
        "Qwen-Qwen2.5-7B-Instruct": "hermes",
        "Qwen3.5-4B": "qwen",
        "meta-llama-Llama-3.3-70B-Instruct": "llama",
        "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
        "openai-gpt-oss-120b": "harmony",
        "google-gemma-2-2b-it": "generic",
        "GLM-4.6": "glm",
        "deepseek-ai-DeepSeek-V3.1": "deepseek",
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "deepseek",
        "ibm-granite-granite-3.3-2B-Instruct": "granite",
        "ibm-granite-granite-4.0": "hermes",
        "LFM2-8B-A1B": "lfm2",
        "LFM2.5-8B-A1B": "lfm2",
    }
    tokens = {"llama": {"<|python_tag|>"}, "harmony": {"<|channel|>", "<|message|>"}}
    for name, form in expected.items():
        source = (shared_dir / "templates" / f"{name}.jinja").read_text()
        assert choose_format(source, tokens.get(form, set())).name == form, name


S = {"type": "string"}
TYPES = {
    "s": S,
    "i": {"type": "integer"},
    "f": {"type": "number"},
    "b": {"type": "boolean"},
    "o": {"type": "object"},
    "l": {"type": "array"},
    "n": {"type": ["string", "null"]},
    "r": {"$ref": "#/$defs/R"},
    "a": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "e": {"enum": ["1", "2"]},
}
TYPED = {"f": {"type": "object", "properties": TYPES, "$defs": {"R": S}}}
VALUES = [
    ("s", "12345", "12345"),
    ("s", '{"name": "x"}', '{"name": "x"}'),
    ("s", "true", "true"),
    ("s", "a\n\nb", "a\n\nb"),
    ("s", 'quotes " and \\ and é', 'quotes " and \\ and é'),
    ("s", "<parameter=x>\n1\n</parameter> is how", "<parameter=x>\n1\n</parameter> is how"),
    ("s", "", ""),
    ("i", "5", 5),
    ("i", "5.0", 5),
    ("i", "five", "five"),
    ("f", "2.5", 2.5),
    ("b", "true", True),
    ("b", "False", False),
    ("o", '{"x": [1, "2"]}', {"x": [1, "2"]}),
    ("l", "[1, 2]", [1, 2]),
    ("n", "null", None),
    ("n", "12", "12"),
    ("r", "12", "12"),
    ("a", "12", 12),
    ("a", "None", None),
    ("e", "1", "1"),
    ("unnamed", "12", 12),
    ("unnamed", "twelve", "twelve"),
]


@pytest.mark.parametrize(("key", "text", "want"), VALUES)
def test_arguments_in_tags_have_the_schemas_types(key, text, want):
    call = f"<tool_call>\n<function=f>\n<parameter={key}>\n{text}\n</parameter>\n<parameter=s>\n"
    call += "end\n</parameter>\n</function>\n</tool_call>"
    for pieces in ([call], call):
        _, content, calls = parsed(BY_NAME["qwen"], pieces, TYPED)
        expected = {key: want, "s": "end"} if key != "s" else {"s": "end"}
        assert content == "" and calls == [("f", expected)]
    short = call.replace("<parameter=s>\nend\n</parameter>\n", "") if key == "s" else ""
    for pieces in ([short], short) if short else ():
        assert parsed(BY_NAME["qwen"], pieces, TYPED)[2] == [("f", {key: want})]


def test_arguments_come_as_they_are_written():
    def seen(form, text):
        parser = make_parser(form, TYPED)
        deltas = [d for letter in text for d in parser.push(letter)]
        return "".join(d.call.arguments if d.call else d.text for d in deltas)

    begun = seen(HERMES, '<tool_call>{"name": "f", "arguments": {"s": "Once upon')
    assert begun == '{"s": "Once upon'
    begun = seen(
        BY_NAME["qwen"], "<tool_call>\n<function=f>\n<parameter=s>\nOnce upon a time there"
    )
    assert begun == '{"s": "Once upon a time there'
    begun = seen(HARMONY, "<|channel|>commentary to=functions.f<|message|>{" + '"s": 1')
    assert begun == '{"s": 1'


def test_marks_inside_of_arguments():
    inner = json.dumps({"s": 'a </tool_call> and "}'})
    for order in ('{"name": "f", "arguments": %s}', '{"arguments": %s, "name": "f"}'):
        text = f"<tool_call>\n{order % inner}\n</tool_call>"
        for pieces in ([text], text):
            assert parsed(HERMES, pieces, TYPED) == ("", "", [("f", json.loads(inner))])


def test_json_that_is_no_call_flows():
    parser = make_parser(GENERIC, TYPED)
    assert "".join(d.text for d in parser.push('{"answer": ')) == '{"answer": '
    assert "".join(d.text for d in parser.push("42}")) == "42}"
