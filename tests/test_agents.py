"""Whole sessions of coding agents, in the shapes in which they send them (written by hand).

Claude Code, Codex CLI, opencode, Continue, Zed, aider and the OpenAI Agents SDK; the model is
played. tests/tools/run_agents.py runs the first three for real.
"""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from servers import events
from speaking import call, make_play, turns
from starlette.testclient import TestClient

from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.single import OneModel

EDIT = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
    "required": ["path", "text"],
    "additionalProperties": False,
}
LIST = {"type": "object", "properties": {}, "$schema": "http://json-schema.org/draft-07/schema#"}
TEXT = 'if a < b:\n\tprint("ü")\n'
FIRST = f"<think>\nTwo things.\n</think>\n\nI look.{call('edit', path='a.py', text=TEXT)}"
ANSWERS = (FIRST + call("list"), call("list"), "Done.")
WANTED = [("edit", {"path": "a.py", "text": TEXT}), ("list", {})]


@pytest.fixture
def server(model):
    service = make_play(model, turns(*ANSWERS), n_ctx=1 << 14)
    with TestClient(create_app(OneModel(service))) as client:
        client.heard = service.heard
        yield client


def named(response):
    """Return the events of a stream whose events have names."""
    assert response.status_code == 200, response.text
    blocks = [b for b in response.text.split("\n\n") if b.startswith("event:")]
    pairs = [b.split("\ndata: ") for b in blocks]
    found = [(name.removeprefix("event: "), json.loads(body)) for name, body in pairs]
    assert all(name == body["type"] for name, body in found)
    return [body for _, body in found]


# -- Claude Code: /v1/messages


def claude_turn(client, messages):
    """Send a turn; return the assistant's blocks, put together of events as its SDK does."""
    block = {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}
    tools = [
        {"name": "edit", "description": "Edit.", "input_schema": EDIT},
        {"name": "list", "description": "List.", "input_schema": LIST},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ]
    body = {
        "model": "claude-sonnet-4-5", "messages": messages, "system": [block], "tools": tools,
        "max_tokens": 900, "stream": True, "thinking": {"type": "enabled", "budget_tokens": 800},
        "metadata": {"user_id": '{"device_id":"0"}'}, "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }  # fmt: skip
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "x-api-key": "none"}
    response = client.post("/v1/messages?beta=true", json=body, headers=headers)
    assert "web_search" in response.headers["x-ggq-notes"]
    blocks, texts, reason = [], [], None
    for event in named(response):
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            texts.append("")
        elif event["type"] == "content_block_delta":
            (text,) = (v for k, v in event["delta"].items() if k != "type")
            texts[event["index"]] += text
        elif event["type"] == "message_delta":
            reason = event["delta"]["stop_reason"]
            assert event["usage"]["output_tokens"] > 0
    for block, text in zip(blocks, texts, strict=True):
        if block["type"] == "tool_use":
            block["input"] = json.loads(text)
        else:
            block[block["type"]] = text
    return blocks, reason


def test_claude_code(server):
    ask = [{"type": "text", "text": "<system-reminder>x</system-reminder>"}]
    messages = [
        {"role": "user", "content": [*ask, {"type": "text", "text": "Go."}]},
        {"role": "system", "content": "Agent types: none."},  # amid the conversation
    ]
    for round_, (kinds, calls) in enumerate(
        [(["thinking", "text", "tool_use", "tool_use"], WANTED), (["tool_use"], WANTED[1:])]
    ):
        blocks, reason = claude_turn(server, messages)
        assert [b["type"] for b in blocks] == kinds
        assert reason == "tool_use"
        uses = [b for b in blocks if b["type"] == "tool_use"]
        assert [(b["name"], b["input"]) for b in uses] == calls
        results = [
            {"type": "tool_result", "tool_use_id": b["id"], "is_error": False,
             "content": [{"type": "text", "text": f"result {i}", "cache_control": {}}]}
            for i, b in enumerate(uses)
        ]  # fmt: skip
        more = [{"type": "text", "text": "Go on."}] if round_ else []
        messages += [
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": results + more},
        ]
    blocks, reason = claude_turn(server, messages)
    assert (blocks, reason) == ([{"type": "text", "text": "Done."}], "end_turn")
    roles = [m.role for m in server.heard[-1].messages]
    assert roles == [
        "system",
        "user",
        "system",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "user",
    ]
    count = {"model": "x", "messages": messages}
    assert server.post("/v1/messages/count_tokens", json=count).json()["input_tokens"] > 30


def test_an_answer_that_claude_code_has_begun(server):
    begun = [{"role": "user", "content": "JSON?"}, {"role": "assistant", "content": "{"}]
    body = {"model": "x", "messages": begun, "max_tokens": 9}
    assert server.post("/v1/messages", json=body).json()["content"][0]["text"] == "A title"


# -- Codex CLI and the Agents SDK: /v1/responses


CODEX_TOOLS = [
    {"type": "function", "name": "edit", "description": "E.", "strict": False, "parameters": EDIT},
    {"type": "function", "name": "list", "description": "L.", "strict": False, "parameters": LIST},
    {"type": "custom", "name": "apply_patch", "description": "P.", "format": {"type": "grammar"}},
    {"type": "web_search", "external_web_access": False},
]  # fmt: skip


def codex_turn(client, items, **more):
    body = {
        "model": "gpt-5.2-codex", "instructions": "You are Codex.", "input": items,
        "tools": CODEX_TOOLS, "tool_choice": "auto", "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"}, "store": False, "stream": True,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
        "text": {"verbosity": "medium"}, "client_metadata": {"turn": "{}"}, **more,
    }  # fmt: skip
    found = named(client.post("/v1/responses", json=body, headers={"originator": "codex_exec"}))
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.completed"
    written = {}
    for event in found:
        if event["type"] == "response.function_call_arguments.delta":
            written[event["item_id"]] = written.get(event["item_id"], "") + event["delta"]
    items = [e["item"] for e in found if e["type"] == "response.output_item.done"]
    for item in items:
        if item["type"] == "function_call":
            assert written.get(item["id"], item["arguments"]) == item["arguments"]
    assert items == found[-1]["response"]["output"]
    return items


def test_codex(server):
    part = {"type": "input_text", "text": "Go."}
    items = [
        {"type": "message", "role": "developer", "content": [{**part, "text": "Be safe."}]},
        {"type": "message", "role": "user", "content": [part]},
    ]
    for calls in (WANTED, WANTED[1:]):
        output = codex_turn(server, items)
        made = [i for i in output if i["type"] == "function_call"]
        assert [(i["name"], json.loads(i["arguments"])) for i in made] == calls
        # it sends back what it got, without ids, thoughts in a form of its own
        items += [{k: v for k, v in i.items() if k not in ("id", "status")} for i in output]
        items += [
            {"type": "function_call_output", "call_id": i["call_id"], "output": '{"ok":1}'}
            for i in made
        ]
    (last,) = codex_turn(server, items)
    assert last["content"][0]["text"] == "Done."
    roles = [m.role for m in server.heard[-1].messages]
    assert roles == [
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
    ]


def test_the_agents_sdk(server):
    """It asks for whole answers too, and gives items back as they came."""
    tools = [{**t, "strict": True} for t in CODEX_TOOLS[:2]]
    items = [{"role": "user", "content": "Go."}]
    for expected in (WANTED, WANTED[1:], []):
        body = {
            "model": "tiny", "instructions": "Help.", "input": items, "tools": tools,
            "include": [], "store": None, "stream": False, "metadata": None, "top_p": None,
        }  # fmt: skip
        whole = server.post("/v1/responses", json=body).json()
        made = [i for i in whole["output"] if i["type"] == "function_call"]
        assert [(i["name"], json.loads(i["arguments"])) for i in made] == expected
        items += whole["output"]
        items += [
            {"type": "function_call_output", "call_id": i["call_id"], "output": "ok"} for i in made
        ]
    assert whole["output"][-1]["content"][0]["text"] == "Done."


# -- opencode, Continue, Zed, aider: /v1/chat/completions


CHAT_TOOLS = [
    {"type": "function", "function": {"name": "edit", "description": "Edit.", "parameters": EDIT}},
    {"type": "function", "function": {"name": "list", "description": "List.", "parameters": LIST}},
]
AGENTS = {
    "opencode": {"max_tokens": 900, "tool_choice": "auto",
                 "stream_options": {"include_usage": True}},
    "Continue": {"max_tokens": 900, "temperature": 0.5, "parallel_tool_calls": False},
    "Zed": {"max_completion_tokens": 900, "temperature": 1.0, "stop": [],
            "parallel_tool_calls": True, "reasoning_effort": None, "prompt_cache_key": "k"},
}  # fmt: skip


@pytest.mark.parametrize("name", AGENTS)
def test_chat_agents(server, name):
    single = AGENTS[name].get("parallel_tool_calls") is False
    content = [{"type": "text", "text": "Go."}] if name == "Zed" else "Go."
    messages = [{"role": "system", "content": "Help."}, {"role": "user", "content": content}]
    for expected in (WANTED[:1] if single else WANTED, WANTED[1:], []):
        body = {"model": "tiny", "messages": messages, "tools": CHAT_TOOLS, "stream": True}
        response = server.post("/v1/chat/completions", json={**body, **AGENTS[name]})
        text, made = "", []
        for chunk in events(response):
            for choice in chunk["choices"]:
                delta, reason = choice["delta"], choice["finish_reason"]
                text += delta.get("content") or ""
                for piece in delta.get("tool_calls", ()):
                    if piece["index"] == len(made):
                        made.append({"id": piece["id"], "type": "function", "function": {}})
                    function = made[piece["index"]]["function"]
                    for key, value in piece["function"].items():
                        function[key] = function.get(key, "") + value
        found = [(m["function"]["name"], json.loads(m["function"]["arguments"])) for m in made]
        assert found == expected
        assert reason == ("tool_calls" if made else "stop")
        said = {"role": "assistant", "content": text or None, "tool_calls": made}
        messages.append(said if made else {"role": "assistant", "content": text})
        results = ({"role": "tool", "tool_call_id": m["id"], "content": "ok"} for m in made)
        messages += [{**r, "content": [{"type": "text", "text": "ok"}]} if name == "Zed" else r
                     for r in results]  # fmt: skip
    assert messages[-1]["content"] == "Done."


def test_aider(server):
    """It knows no tools: edits are text, and its examples are turns."""
    body = {
        "model": "tiny", "stream": True, "temperature": 0, "max_tokens": 99,
        "messages": [
            {"role": "system", "content": "Act as an expert."},
            {"role": "user", "content": "Change x."},
            {"role": "assistant", "content": "```\n<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE\n```"},
            {"role": "user", "content": "I switched to a new code base."},
            {"role": "assistant", "content": "Ok."},
            {"role": "user", "content": "Go."},
        ],
    }  # fmt: skip
    chunks = events(server.post("/v1/chat/completions", json=body))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "A title"
