"""Conversations that templates refuse as they are, said so that they take them."""

import pytest

from ggq.errors import UsageError
from ggq.runtime.template.readings import readings
from ggq.runtime.template.template import ChatTemplate

TEMPLATES = {
    "qwen": "Qwen3.5-4B",
    "gemma": "google-gemma-2-2b-it",
    "mistral": "mistralai-Mistral-Nemo-Instruct-2407",
    "small": "Mistral-Small-3.2-24B-Instruct-2506",
    "llama": "meta-llama-Llama-3.3-70B-Instruct",
    "ministral": "mistralai-Ministral-3-14B-Reasoning-2512",
}


def call(i, arguments="{}"):
    function = {"name": "get_weather", "arguments": arguments}
    return {"id": f"{i:09d}", "type": "function", "function": function}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
CONVERSATIONS = {
    "system later": [said("user", "u1"), said("system", "s1")],
    "several systems": [said("system", "s1"), said("system", "s2"), said("user", "u1")],
    "developer and system": [said("developer", "d1"), said("system", "s1"), said("user", "u1")],
    "system between": [said("user", "u1"), said("assistant", "a1"), said("system", "s1"),
                       said("user", "u2")],
    "users in a row": [said("user", "u1"), said("user", "u2")],
    "assistants in a row": [said("user", "u1"), said("assistant", "a1"), said("assistant", "a2"),
                            said("user", "u2")],
    "assistant first": [said("system", "s1"), said("user", "u1"), said("assistant", "a1"),
                        said("user", "u2"), said("user", "u3")],
    "no user first": [said("assistant", "a1"), said("user", "u1")],
}  # fmt: skip
WITH_TOOLS = {
    "parallel results": [
        said("user", "u1"),
        said("assistant", "", tool_calls=[call(1), call(2)]),
        said("tool", "20C", tool_call_id="000000001"),
        said("tool", "25C", tool_call_id="000000002"),
    ],
    "a user after results": [
        said("user", "u1"),
        said("assistant", "", tool_calls=[call(1)]),
        said("tool", "20C", tool_call_id="000000001"),
        said("user", "u2"),
    ],
    "arguments that are no JSON": [
        said("user", "u1"),
        said("assistant", "", tool_calls=[call(1, '{"city": "cut o')]),
        said("tool", "20C", tool_call_id="000000001"),
    ],
}  # fmt: skip


def template(shared_dir, name):
    source = (shared_dir / "templates" / f"{TEMPLATES[name]}.jinja").read_text("utf-8")
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("which", CONVERSATIONS)
def test_nothing_said_is_lost(shared_dir, name, which):
    messages = CONVERSATIONS[which]
    text = template(shared_dir, name).render_text(messages)
    for message in messages:
        assert text.count(message["content"]) == 1, message["content"]


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"gemma"}))
@pytest.mark.parametrize("which", WITH_TOOLS)
def test_calls_and_their_results(shared_dir, name, which):
    text = template(shared_dir, name).render_text(WITH_TOOLS[which], tools=TOOLS)
    assert text.index("20C") < text.rindex("25C") if "25C" in str(WITH_TOOLS[which]) else True
    assert all(m["content"] in text for m in WITH_TOOLS[which])
    assert ("cut o" in text) == ("cut o" in str(WITH_TOOLS[which]))


def test_the_first_reading_is_the_conversation_itself():
    for messages in [*CONVERSATIONS.values(), *WITH_TOOLS.values()]:
        first = next(readings(messages))
        assert [m["role"] for m in first] == [m["role"] for m in messages]
        assert [m["content"] for m in first] == [m["content"] for m in messages]


def test_each_call_gets_its_result():
    *_, last = readings(WITH_TOOLS["parallel results"])
    roles = ["user", "assistant", "tool", "assistant", "tool"]
    assert [m["role"] for m in last] == roles
    for asked, got in ((1, 2), (3, 4)):
        assert last[asked]["tool_calls"][0]["id"] == last[got]["tool_call_id"]


def test_the_first_refusal_is_the_one_that_is_told():
    source = "{{ raise_exception('says ' ~ messages | length) }}"
    with pytest.raises(UsageError, match="says 2"):
        ChatTemplate(source).render(CONVERSATIONS["users in a row"])


THOUGHTFUL = {  # template -> what past thoughts, and the answer behind them, are written as
    "mistralai-Ministral-3-14B-Reasoning-2512": ("[THINK]t1[/THINK]a1", "[THINK]t2[/THINK]["),
    "Apertus-8B-Instruct": (
        "<|inner_prefix|>t1<|inner_suffix|>a1",
        "<|inner_prefix|>t2<|tools_prefix|>",
    ),
}


@pytest.mark.parametrize("name", THOUGHTFUL)
def test_past_thoughts_stand_where_the_template_reads_them(name, shared_dir):
    source = (shared_dir / "templates" / f"{name}.jinja").read_text("utf-8")
    messages = [
        said("user", "u1"),
        said("assistant", "a1", reasoning_content="t1"),
        said("user", "u2"),
        said("assistant", None, reasoning_content="t2", tool_calls=[call(1)]),
        said("tool", "20C", tool_call_id="000000001"),
        said("assistant", "a3"),
        said("user", "u3"),
    ]
    text = ChatTemplate(source).render_text(messages)
    assert all(part in text for part in THOUGHTFUL[name]) and "a3" in text
    without = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    assert "t1" not in ChatTemplate(source).render_text(without)


def test_what_a_filter_makes_one_by_one_is_written_as_json():
    source = "{{ tools | map(attribute='function') | tojson }}"
    assert ChatTemplate(source).render_text([], tools=TOOLS) == (
        '[{"name": "get_weather", "parameters": {}}]'
    )
