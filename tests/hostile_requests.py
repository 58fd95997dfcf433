"""Requests that are wrong, by path and field, and right ones of which a part is without effect.

Not a test itself: tests/test_server_hostile.py sends them.
"""
# fmt: off

import functools

from servers import HI, WEATHER

BIG, NAN, INF = 10**400, float("nan"), float("inf")
DEEP = functools.reduce(lambda x, _: {"type": "object", "properties": {"a": x}}, range(300), {})
FORCED = {"tools": [WEATHER], "tool_choice": "required"}


def user(content, **more):
    """Return a conversation of one message."""
    return [{"role": "user", "content": content, **more}]


def assistant(**said):
    """Return a conversation in which the assistant has said something wrong."""
    return [*HI, {"role": "assistant", **said}, *HI]


def schema(**words):
    """Return a response_format."""
    return {"type": "json_schema", "json_schema": {"schema": words}}


def function(name="f", **more):
    """Return a tool."""
    return {"type": "function", "function": {"name": name, **more}}


_ANY = {  # of every interface that writes text
    "temperature": ["1", -1, BIG, [], {}, True],
    "top_p": [2, -1, "x"],
    "model": [5, []],
    "stream": ["yes", 1],
}
_SAMPLING = {
    **_ANY,
    "top_k": [-2, 1.5, 2**40],
    "n": [0, -1, 17, 2**70, 1.5, "1"],
    "max_tokens": [-2, 2**31, 2**63, 1.5, "5"],
    "n_predict": [-2, 2**64],
    "stop": ["", [""], ["a", ""], [None], ["a" * 600], 5, {}, ["x"] * 300],
    "seed": [-2, 2**64, 1.5, "a", True],
    "stream_options": [{"include_usage": 1}, 5, []],
    "logit_bias": [{"a": 1}, {"5": 1e9}, {"-1": 1}, {"99999999": 1}, [], {"5": None}],
    "response_format": [
        "json", {"type": None}, {"type": "grammar"}, {"type": "json_schema"}, schema(type="nope"),
        {"type": "json_schema", "json_schema": {"schema": []}}, schema(enum=[]), DEEP | {"type": 5},
        schema(**{"$ref": "#/nowhere"}), schema(**{"$ref": "http://x/y"}), schema(pattern="("),
        schema(type="array", uniqueItems=True), schema(type="integer", minimum=5, maximum=1),
        schema(**{"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}), schema(**DEEP),
        {"type": "json_object", "schema": 5},
    ],
    "json_schema": [{"type": 5}, 5, {"not": {}}],
    "grammar": ["root", "root ::= root", 'root ::= "a', "x" * 70000, 5],
    "user": [5, "u" * 600],
    "samplers": ["zz", 5, [5]],
    "dry_multiplier": [-1, "x"],
    "mirostat": [3],
    "min_p": [5],
    "repeat_penalty": [0],
    "cache_prompt": ["x"],
    "ignore_eos": [5],
}

WRONG = {
    "/v1/chat/completions": {
        **_SAMPLING,
        "messages": [
            None, [], {}, "x", [None], [[]], [1], ["hi"], [{}], [{"role": None, "content": "a"}],
            [{"role": "", "content": "a"}], user(5), user({"a": 1}), user([None]), user([[]]),
            user([{"type": "image_url", "image_url": {"url": "data:"}}]),
            user([{"type": "input_audio"}]), user([{"type": "file"}]), user([{"type": "text"}]),
            user([{"type": "text", "text": 5}]), user([{"type": None, "text": "a"}]),
            assistant(tool_calls=[{}]), assistant(tool_calls=[{"function": {"name": 5}}]),
            assistant(tool_calls=[{"function": {"name": "f", "arguments": 5}}]),
            assistant(tool_calls=[{"type": "custom", "custom": {"name": 5}}]),
            assistant(function_call={}), user("a", tool_call_id=5),
        ],
        "max_completion_tokens": [0, 2**64],
        "logprobs": [1, "x"],
        "top_logprobs": [21, -1, 2],
        "tools": [
            {}, "x", [None], [5], [{}], [{"type": 5}], [function(5)], [function("")],
            [function("a" * 200)], [function("ä")], [function(parameters=5)], [WEATHER] * 600,
            [function(), function()], [function(description=5)], [function(strict="x")],
        ],
        "tool_choice": [
            "required", "any", "x", 5, {}, [], {"type": "function"}, {"type": "allowed_tools"},
            {"type": "function", "function": {"name": "x"}},
        ],
        "functions": [[5], [{}], [{"name": "f", "parameters": 5}]],
        "function_call": ["x", {"name": "f"}, 5],
        "parallel_tool_calls": ["x"],
        "chat_template_kwargs": [5, {"messages": []}, {"a b": 1}, {"tools": 1}],
        "reasoning_effort": [5, "x" * 99],
        "modalities": [["audio"], "text"],
        "truncation": ["x"],
        "continue_final_message": [True, "x"],
        "add_generation_prompt": [None],
    },
    "/v1/completions": {
        **_SAMPLING,
        "prompt": [
            None, "", [], [""], 5, {}, [None], [1.5], [[]], [[], [1]], ["a", 1], ["a", [1]],
            ["a"] * 65, [True],
        ],
        "suffix": ["x", 5],
        "echo": ["x"],
        "logprobs": [True, -1, 21, 1.5],
        "best_of": [0, 2, 17],
        "dry_sequence_breakers": [5, [5]],
    },
    "/v1/responses": {
        **_ANY,
        "input": [
            None, [], {}, 5, [None], [5], ["a"], [[]], [{}], user(None), user(5),
            [{"role": 5, "content": "a"}], user([{"type": "input_image", "image_url": "x"}]),
            user([{"type": "input_file"}]), user([{"type": "input_text"}]), user([5]),
            [{"type": "item_reference", "id": "x"}], [{"type": 5}], [{"type": []}],
            [{"type": "nonsense"}], [{"type": "function_call"}], [{"type": "reasoning"}],
            [{"type": "function_call", "name": 5}], [{"type": "web_search_call"}],
            [{"type": "function_call", "name": "f", "arguments": 5}],
            [{"type": "function_call_output"}], [{"type": "custom_tool_call", "input": "x"}],
            [{"type": "function_call_output", "call_id": "x", "output": 5}],
            [{"type": "function_call_output", "call_id": "x", "output": [5]}],
            [{"type": "function_call_output", "call_id": "x", "output": [{"type": "x"}]}],
            [{"type": "local_shell_call", "action": 5}], [{"type": "computer_call"}],
        ],
        "instructions": [5, []],
        "tools": [
            [5], {}, [{}], [{"type": "function"}], [{"name": 5}], [{"name": "a b"}],
            [{"name": "f", "parameters": 5}], [{"type": 5}], [{"name": "f"}, {"name": "f"}],
        ],
        "tool_choice": ["x", 5, {}, "required", {"type": "function", "name": "nope"},
                        {"type": "allowed_tools", "mode": "auto", "tools": []}],
        "max_output_tokens": [0, -2, 1.5, 2**40],
        "text": [
            5, {"format": 5}, {"format": {"type": "x"}}, {"format": {"type": "json_schema"}},
            {"format": {"type": "json_schema", "schema": {"type": "nope"}}},
            {"format": {"type": "json_schema", "schema": {"type": "array", "uniqueItems": True}}},
        ],
        "reasoning": [5, {"effort": 5}],
        "previous_response_id": ["x", 5],
        "conversation": ["x"],
        "prompt": [{"id": "x"}],
        "background": [True, "x"],
        "truncation": ["x"],
        "metadata": [5],
        "parallel_tool_calls": [5],
        "user": [5],
    },
    "/v1/messages": {
        **_ANY,
        "messages": [
            None, [], {}, 5, "x", [None], [[]], [{}], [{"role": "user"}], user(None), user(5),
            [{"role": "tool", "content": "x"}], [{"role": 5, "content": "x"}], user(["a"]),
            user([{}]), user([{"type": "image", "source": {}}]), user([{"type": "document"}]),
            user([{"type": "text"}]), user([{"type": "text", "text": 5}]), user([{"type": 5}]),
            user([{"type": "tool_result"}]),
            user([{"type": "tool_result", "tool_use_id": "x", "content": 5}]),
            user([{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]}]),
            assistant(content=[{"type": "tool_use"}]), assistant(content=[{"type": "thinking"}]),
            assistant(content=[{"type": "tool_use", "id": "x", "name": "f", "input": 5}]),
            assistant(content=[{"type": "tool_use", "id": 5, "name": "f", "input": {}}]),
            assistant(content=[{"type": "tool_use", "id": "x", "name": 5, "input": {}}]),
            assistant(content=[{"type": "server_tool_use", "id": "x", "name": "w", "input": {}}]),
        ],
        "max_tokens": [None, 0, -1, 1.5, "5", 2**40],
        "system": [5, [5], [{}], [{"type": "text"}], [{"type": "image"}], {}],
        "tools": [
            [5], {}, [{}], [{"name": 5}], [{"name": "a b"}], [{"name": "f", "input_schema": 5}],
            [{"type": 5, "name": "f"}], [{"name": "f", "description": 5}],
        ],
        "tool_choice": ["auto", 5, {}, {"type": "x"}, {"type": 5}, {"type": "any"},
                        {"type": "tool"}, {"type": "tool", "name": "nope"}],
        "thinking": [5, {}, {"type": "x"}, {"type": 5}],
        "top_k": [-2, 1.5],
        "stop_sequences": ["x", [None], [""], ["a"] * 300],
        "metadata": [5, {"user_id": 5}],
        "output_config": [
            5, {"format": 5}, {"format": {"type": "x"}}, {"format": {"type": "json_schema"}},
            {"format": {"type": "json_schema", "schema": {"type": "nope"}}},
        ],
    },
    "/v1/embeddings": {
        "input": [
            None, [], 5, {}, [None], [1.5], [2**31], [10**6], [[]], [[], [1]], ["a", 1],
            ["a", [1]], ["a"] * 3000, [True], [[5, 10**6]], [["a"]], [{}], [2**70], [[None]],
            ["a", None], [[1.5]], [{"text": "a"}],
        ],
        "encoding_format": ["x", 5, "", [], {}, True],
        "dimensions": [0, -1, 10**6, 2**40, 1.5, "5", [], True],
        "model": [5, [], {}],
        "user": [5, [], {}],
        "pooling": ["x", 5, "none", "rank", "", "a" * 99, []],
        "normalize": ["x", 1, [], {}],
        "prompt_name": [5, "a" * 200, [], {}],
        "prompt": [5, [], {}],
        "truncate": ["x", 1, [], {}],
    },
    "/v1/rerank": {
        "query": [None, 5, [], {}, ["a"], True, 1.5, [None]],
        "documents": [
            None, [], 5, "x", {}, [None], [5], [{}], [{"text": 5}], [{"text": None}],
            [{"title": 1}], ["a"] * 5000, [[]], [["a"]], [True], ["a", None], ["a", {"text": []}],
            [1.5], True,
        ],
        "texts": [[], ["a"], [5], "x", {}, [None], [{}], 5],
        "top_n": [0, -1, 1.5, "1", [], {}, True],
        "return_documents": ["x", 1, [], {}],
        "return_text": ["x", 1, [], {}],
        "truncate": ["x", 1, [], {}],
        "truncation": ["x", 1, []],
        "model": [5, [], {}, True],
    },
}

# Fields that together are wrong: what is sent, the field that is named.
TOGETHER = [
    ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, "grammar"),
    ({"json_schema": {}, "response_format": {"type": "json_object"}}, "json_schema"),
    ({"grammar": 'root ::= "a"', **FORCED}, "grammar"),
    ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
    ({"max_tokens": 2, "n_predict": 3}, "n_predict"),
    ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repetition_penalty"),
    ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
    ({"function_call": {"name": "f"}, "tools": [WEATHER]}, "function_call"),
    ({"tools": [function()], "functions": [{"name": "f"}]}, "functions"),
]

# What is taken, and said to be without effect.
TOLD = [
    ("/v1/chat/completions", {"messages": user("a", cache_control={})}, ""),
    ("/v1/chat/completions", {"messages": user("a", cache_control={"type": "ephemeral"})},
     "messages[].cache_control"),
    ("/v1/chat/completions", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("/v1/chat/completions", {"stream": True, "stream_options": {"include_obfuscation": True}},
     "stream_options.include_obfuscation"),
    ("/v1/chat/completions", {"tools": [{"type": "web_search"}]}, "tools[0] skipped: web_search"),
    ("/v1/responses", {"text": {"verbosity": "low"}}, "text.verbosity"),
    ("/v1/responses", {"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ("/v1/messages", {"messages": user([{"type": "text", "text": "a", "cache_control": {}}])},
     "text.cache_control"),
    ("/v1/messages", {"messages": user([{"type": "tool_result", "tool_use_id": "x", "content": "e",
                                         "is_error": True}])}, "tool_result.is_error"),
    ("/v1/messages", {"metadata": {"x": 1}}, "metadata.x"),
    ("/v1/messages", {"tools": [{"name": "f", "cache_control": {}}]}, "tools.cache_control"),
]

RAW = [
    b"", b"null", b"[]", b"5", b'"x"', b"{", b'{"messages":NaN}', b'{"temperature":Infinity}',
    b"\xff\xfe", b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"[" * 100_000,
    b'{"a":' * 5000, b'{"seed":1' + b"0" * 5000 + b"}", b'{"input":NaN,"query":-Infinity}',
]
