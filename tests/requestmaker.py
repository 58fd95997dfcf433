"""Makes wrong requests: strategies for every field of the server's interface. Not a test itself."""

from hypothesis import strategies as st
from servers import WEATHER

NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30]),
)
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "developer", "", "x"])
PARTS = st.dictionaries(
    st.sampled_from(["type", "text", "image_url", "id", "name", "input", "tool_use_id", "content"]),
    st.one_of(st.sampled_from(["text", "input_text", "tool_use", "tool_result", "x"]), JUNK),
    max_size=5,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"id": JUNK, "type": JUNK, "function": st.one_of(JUNK, st.fixed_dictionaries(
            {"name": st.text(max_size=6), "arguments": st.one_of(st.just('{"a": 1}'), JUNK)}))}
    ),
    max_size=2,
)  # fmt: skip
_EXTRA = ("name", "tool_call_id", "reasoning_content")
CONTENT = st.one_of(st.text(max_size=30), st.lists(PARTS, max_size=3), JUNK)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": CONTENT},
        optional={"tool_calls": CALLS, **dict.fromkeys(_EXTRA, JUNK)},
    ),
    max_size=4,
)  # fmt: skip
SCHEMAS = st.dictionaries(
    st.sampled_from(["type", "properties", "enum", "anyOf", "pattern", "$ref", "items", "minimum"]),
    st.one_of(st.sampled_from(["object", "string", "[", "#/x"]), JUNK),
    max_size=4,
)
TOOLS = st.lists(
    st.one_of(
        st.just(WEATHER),
        JUNK,
        st.fixed_dictionaries({
            "type": st.sampled_from(["function", "x"]),
            "name": st.text(max_size=4),
            "function": st.fixed_dictionaries({"name": st.text(max_size=4), "parameters": SCHEMAS}),
        }),
    ),
    max_size=2,
)  # fmt: skip
GRAMMARS = st.sampled_from(["start: /a*/", 'root ::= "a"', "root ::= (root)", "start: start"])
FIELDS = {
    "messages": st.one_of(MESSAGES, JUNK),
    "prompt": st.one_of(st.text(max_size=20), st.lists(NUMBERS, max_size=4), JUNK),
    "input": st.one_of(st.text(max_size=20), MESSAGES, st.lists(st.text(max_size=5)), JUNK),
    "content": st.one_of(st.text(max_size=50), JUNK),
    "tokens": st.one_of(st.lists(NUMBERS, max_size=6), JUNK),
    "system": st.one_of(st.text(max_size=10), st.lists(PARTS, max_size=2), JUNK),
    "instructions": st.one_of(st.text(max_size=10), JUNK),
    "tools": st.one_of(TOOLS, JUNK),
    "tool_choice": st.one_of(st.sampled_from(["none", "auto", "required", "any"]), JUNK),
    "response_format": st.one_of(
        JUNK,
        st.fixed_dictionaries({
            "type": st.sampled_from(["text", "json_object", "json_schema", "x"]),
            "json_schema": st.fixed_dictionaries({"schema": st.one_of(SCHEMAS, JUNK)}),
        }),
    ),
    "grammar": st.one_of(st.text(max_size=20), GRAMMARS, JUNK),
    "logit_bias": st.one_of(st.dictionaries(st.text("0123456789-x", max_size=12), NUMBERS), JUNK),
    "stop": st.one_of(st.text(max_size=5), st.lists(st.text(max_size=3), max_size=20), JUNK),
    "stream": st.one_of(st.booleans(), JUNK),
    "stream_options": JUNK,
    "logprobs": st.one_of(st.booleans(), NUMBERS),
    "chat_template_kwargs": JUNK,
    "samplers": st.one_of(st.text("edskypmxt;", max_size=8), JUNK),
}  # fmt: skip
FIELDS |= {
    "options": st.one_of(
        st.dictionaries(
            st.sampled_from(["temperature", "top_k", "seed", "stop", "num_predict", "num_ctx"]),
            st.one_of(NUMBERS, st.text(max_size=4), JUNK),
            max_size=3,
        ),
        JUNK,
    ),
    "format": st.one_of(st.sampled_from(["json", "", "x"]), SCHEMAS, JUNK),
    "think": st.one_of(st.booleans(), st.sampled_from(["low", "x"]), JUNK),
    "keep_alive": st.one_of(st.sampled_from(["5m", "-1", "x"]), NUMBERS, JUNK),
    "suffix": st.one_of(st.text(max_size=5), JUNK),
    "raw": st.one_of(st.booleans(), JUNK),
    "query": st.one_of(st.text(max_size=5), JUNK),
    "documents": st.one_of(st.lists(st.text(max_size=5), max_size=3), JUNK),
    "thinking": st.one_of(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["enabled", "disabled", "adaptive", "x"]),
                "budget_tokens": st.one_of(NUMBERS, JUNK),
            }
        ),
        JUNK,
    ),
    "reasoning_format": st.one_of(st.sampled_from(["none", "auto", "deepseek-legacy"]), JUNK),
    "reasoning": st.one_of(st.fixed_dictionaries({"effort": JUNK}), JUNK),
    "texts": st.one_of(st.lists(st.text(max_size=9), max_size=3), JUNK),
    "model": st.one_of(st.text(max_size=8), JUNK),
}
_NUMBERS = (
    "temperature top_p top_k min_p typical_p repeat_penalty presence_penalty frequency_penalty "
    "repeat_last_n mirostat mirostat_tau mirostat_eta dry_multiplier dry_base dry_allowed_length "
    "xtc_probability xtc_threshold top_n_sigma dynatemp_range dynatemp_exponent n seed "
    "top_logprobs max_completion_tokens n_predict dimensions best_of thinking_budget_tokens "
    "embd_normalize"
)
FIELDS |= dict.fromkeys(_NUMBERS.split(), st.one_of(NUMBERS, JUNK))
