"""Forced tool calls and grammars in every format, on random models with the format's own tokens."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")
pytest.importorskip("llguidance")

from ggufmaker import CONTROL, bpe_vocab, make_tiny_llama
from servers import CHAT, HI, WEATHER, serving

import ggq
from ggq.gguf import spec

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        },
    },
}
CHATML = bpe_vocab()["tokenizer.chat_template"]
FORMATS = {
    "hermes": ((), CHATML + "{# tools <tool_call> #}"),
    "hermes tokens": (("<tool_call>", "</tool_call>"), CHATML + "{# tools <tool_call> #}"),
    "mistral": (("[TOOL_CALLS]",), CHATML + "{# tools [TOOL_CALLS] #}"),
    "llama": (("<|python_tag|>",), CHATML + "{# tools parameters #}"),
    "harmony": (
        ("<|channel|>", "<|message|>", "<|constrain|>", "<|call|>", "<|start|>"),
        CHATML + "{# tools #}",
    ),
    "generic": ((), CHATML),
}


def tiny(folder, name):
    """Write a random model whose vocabulary has the format's control tokens."""
    marks, template = FORMATS[name]
    keys = bpe_vocab()
    tokens, kind = keys["tokenizer.ggml.tokens"]
    types, _ = keys["tokenizer.ggml.token_type"]
    keys["tokenizer.ggml.tokens"] = ([*tokens, *marks], kind)
    keys["tokenizer.ggml.token_type"] = ([*types, *[CONTROL] * len(marks)], spec.I32)
    keys["tokenizer.chat_template"] = template
    return make_tiny_llama(folder / "t.gguf", n_ctx=2048, n_layer=1, vocab=keys)


@pytest.mark.parametrize("name", FORMATS)
def test_forced_calls(tmp_path, name):
    with ggq.load(tiny(tmp_path, name), n_ctx=8192, threads=1) as model, serving(model) as client:
        assert client.app.state.host.service.format.name == name.partition(" ")[0]
        named = [{"type": "function", "function": {"name": n}} for n in ("add", "get_weather")]
        for seed, forced in enumerate(["required", "required", *named]):
            body = {
                "messages": HI,
                "tools": [WEATHER, ADD],
                "tool_choice": forced,
                "max_tokens": 200,
                "temperature": 3.0,
                "seed": seed,
            }
            choice = client.post(CHAT, json=body).json()["choices"][0]
            (call,) = choice["message"]["tool_calls"]
            assert choice["finish_reason"] == "tool_calls"
            assert choice["message"]["content"] is None
            arguments = json.loads(call["function"]["arguments"])
            if call["function"]["name"] == "add":
                assert isinstance(arguments["ok"], bool)
            else:
                assert arguments["city"] in ("Bern", "Rome")
            if forced != "required":
                assert call["function"]["name"] == forced["function"]["name"]


def test_thoughts_are_free_and_the_answer_is_not(tmp_path):
    folder = tmp_path
    keys = bpe_vocab()
    keys["tokenizer.chat_template"] = CHATML.replace("assistant\n", "assistant\n<think>")
    tokens, kind = keys["tokenizer.ggml.tokens"]
    types, _ = keys["tokenizer.ggml.token_type"]
    keys["tokenizer.ggml.tokens"] = ([*tokens, "</think>"], kind)
    keys["tokenizer.ggml.token_type"] = ([*types, CONTROL], spec.I32)
    path = make_tiny_llama(folder / "t.gguf", n_ctx=2048, n_layer=1, vocab=keys)
    with ggq.load(path, n_ctx=8192, threads=1) as model, serving(model) as client:
        closing = model.tokenizer.ids["</think>"]
        body = {
            "messages": HI,
            "grammar": 'root ::= "yes" | "no"',
            "max_tokens": 500,
            "temperature": 3.0,
            "logit_bias": {str(closing): 4},
            "seed": 1,
        }
        message = client.post(CHAT, json=body).json()["choices"][0]["message"]
        assert message["reasoning_content"]
        assert message["content"] in ("yes", "no")


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a" root',  # never ends
        'root ::= ("x"{1,1000000}){1,1000000}',
        "start: /(((a{1,1000}){1,1000}){1,1000})*b/",
        "start: start",
        "start: missing",
        "start: %json {",
        "start: <[99999999]>",
        "\x00",
        "root ::= root | root root",
    ],
)
def test_hostile_grammars(tmp_path, grammar):
    with ggq.load(tiny(tmp_path, "generic"), threads=1) as model, serving(model) as client:
        body = {"messages": HI, "grammar": grammar, "max_tokens": 4}
        found = client.post(CHAT, json=body)
        assert found.status_code in (200, 400), found.text
        if found.status_code == 400:
            assert found.json()["error"]["message"].startswith("grammar: ")
        assert client.get("/health").status_code == 200
