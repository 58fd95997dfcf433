"""A round trip with tools in the published templates of the formats that are parsed."""

import json

import pytest

pytest.importorskip("msgspec", reason="the extra serve is not installed")

from servers import WEATHER

from ggq.runtime.formats import choose_format
from ggq.runtime.server.errors import APIError
from ggq.runtime.server.prompts import Prompter
from ggq.runtime.server.schema import ChatBody, decode
from ggq.runtime.server.tools import offered_tools, skipped_tools
from ggq.runtime.template.template import ChatTemplate

TOKENS = {"llama": {"<|python_tag|>"}, "harmony": {"<|channel|>", "<|message|>"}}
TEMPLATES = {
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", False),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", False),
    "Qwen3-Coder": ("qwen", False),
    "Qwen3.5-4B": ("qwen", True),
    "GLM-4.6": ("glm", False),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama", False),
    "meta-llama-Llama-3.3-70B-Instruct": ("llama", False),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", False),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral", False),
    "openai-gpt-oss-120b": ("harmony", False),
    "google-gemma-2-2b-it": ("generic", False),  # knows no tools, and no system message
}
CALL = {
    "id": "call_abcdefghi",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'},
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_abcdefghi", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny."},
    {"role": "user", "content": "And tomorrow?"},
]


class Letters:
    """A tokenizer of bytes."""

    add_bos, bos_id, n_vocab = False, None, 1

    def all_controls(self):
        return []

    def token_bytes(self, token):
        return b""

    def encode(self, text, add_special=True, parse_special=False):
        return list(text.encode())


def body(**more):
    return decode(json.dumps({"messages": MESSAGES, "tools": [WEATHER], **more}).encode(), ChatBody)


def prompter(source, name):
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    return Prompter(template, Letters(), choose_format(source, TOKENS.get(name, set())))


@pytest.mark.parametrize("name", TEMPLATES)
def test_published_templates(shared_dir, name):
    form, thinking = TEMPLATES[name]
    source = next((shared_dir / "templates").glob(f"*{name}.jinja")).read_text("utf-8")
    assert choose_format(source, TOKENS.get(form, set())).name == form
    prompt = prompter(source, form).render(body())
    for word in ("get_weather", "Bern", "sunny", "Weather?", "And tomorrow?", "Be brief."):
        assert word in prompt.text, word
    assert prompt.thinking == thinking
    assert prompt.ids == list(prompt.text.encode())
    plain = prompter(source, form).render(body(tool_choice="none", messages=MESSAGES[:2]))
    assert "get_weather" not in plain.text


ROUND = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes"),
        ("Qwen-Qwen2.5-7B-Instruct", "hermes"),
        ("ibm-granite-granite-4.0", "hermes"),
        ("Qwen3-Coder", "qwen"),
        ("Qwen3.5-4B", "qwen"),
        ("GLM-4.6", "glm"),
        ("poolside-Laguna-S-2.1", "glm"),
        ("deepseek-ai-DeepSeek-V3.1", "deepseek"),
        ("LFM2.5-8B-A1B", "lfm2"),
        ("mistralai-Mistral-Nemo-Instruct-2407", "mistral"),
        ("openai-gpt-oss-120b", "harmony"),
    ],
)
def test_calls_that_a_template_writes_are_read(shared_dir, name, form):
    source = next((shared_dir / "templates").glob(f"*{name}.jinja")).read_text("utf-8")
    found = choose_format(source, TOKENS.get(form, set()))
    assert found.name == form
    arguments = {"city": "Bern", "days": 3}
    function = {"name": "get_weather", "arguments": json.dumps(arguments)}
    given = [MESSAGES[1], {"role": "assistant", "tool_calls": [{**CALL, "function": function}]}]
    given.append(MESSAGES[3])

    def rendered(messages):
        made = prompter(source, form)
        return made.render(body(messages=messages, add_generation_prompt=False)).text

    whole, before = rendered(given), rendered(given[:1])
    same = (i for i, pair in enumerate(zip(whole, before, strict=False)) if pair[0] != pair[1])
    answer = whole[next(same, len(before)) :]
    for pieces in ([answer], answer):
        parser = found.parser({"get_weather": ROUND}, False)
        deltas = [d for piece in pieces for d in parser.push(piece)] + parser.finish()
        calls = [d for d in deltas if d.kind == "call"]
        assert [d.call.name for d in calls if d.call] == ["get_weather"]
        text = "".join(d.call.arguments if d.call else d.text for d in calls)
        assert json.JSONDecoder().raw_decode(text)[0] == arguments


def test_template_variables():
    source = "{{ enable_thinking }} {{ reasoning_effort }} {{ messages[0].content }}"
    found = prompter(source, "").render(
        body(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")
    )
    assert found.text.startswith("False low ")
    with pytest.raises(APIError, match="messages cannot be set"):
        prompter(source, "").render(body(chat_template_kwargs={"messages": []}))


def test_offered_tools():
    assert offered_tools(body()) == [WEATHER]
    assert offered_tools(body(tool_choice="none")) == []
    assert offered_tools(body(tools=[{"type": "web_search"}])) == []
    assert skipped_tools(body(tools=[WEATHER, {"type": "web_search"}])) == [
        "tools[1] skipped: web_search is no function"
    ]


PHI = (  # as Phi 4 mini's: tools are a member of the system message, calls are not known
    "{% for m in messages %}{% if m['role'] == 'system' and 'tools' in m and m['tools'] is not none"
    " %}<|system|>{{ m['content'] }}<|tool|>{{ m['tools'] }}<|/tool|><|end|>{% else %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}<|assistant|>"
)


def told(source, messages, tools=(WEATHER,)):
    body = {"messages": messages, "tools": list(tools)}
    return prompter(source, "x").render(decode(json.dumps(body).encode(), ChatBody)).text


def test_tools_inside_of_the_system_message():
    name, ask = WEATHER["function"]["name"], {"role": "user", "content": "Weather?"}
    text = told(PHI, [ask])
    assert text.startswith("<|system|><|tool|>[") and text.count(f'"{name}"') == 1
    text = told(PHI, [{"role": "system", "content": "Be brief."}, ask])
    assert text.startswith("<|system|>Be brief.<|tool|>[{")
    text = told(PHI, MESSAGES)
    call = '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Bern"}}]<|/tool_call|>'
    assert f"<|assistant|>{call}<|end|>" in text
    assert "<|tool|>sunny<|end|>" in text


def test_a_template_that_ignores_its_tools_gets_them_explained():
    ignores = "{% if tools %}{% endif %}{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert '"get_weather"' in told(ignores, [{"role": "user", "content": "Weather?"}])


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_of_earlier_turns_by_each_name(key):
    source = f"{{% for m in messages %}}{{{{ m.{key} }}}}|{{{{ m.content }}}}{{% endfor %}}"
    turns = [{"role": "assistant", "content": "A", "reasoning_content": "Hm."}]
    assert "Hm.|A" in told(source, [*turns, {"role": "user", "content": "x"}], ())
