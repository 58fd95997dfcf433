"""Calls as published templates write them: rendered, read back, and put to a grammar."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from test_server_prompts import prompter

from ggq.runtime.formats import choose_format
from ggq.runtime.server.schema import ChatBody, decode

TOKENS = {"llama": {"<|python_tag|>"}, "harmony": {"<|channel|>", "<|message|>"}}
ENDS = re.compile(
    r"<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|</s>|<turn\|>|<\|end_of_text\|>|<seed:eos>|"
    r"<\|END_OF_TURN_TOKEN\|>|<\|observation\|>|<end_of_sentence>|\[e~\[|\n?<SPECIAL_12>|"
    r"<｜end▁of▁sentence｜>|\n?</assistant>|<\|role_end\|>|<｜hy_eos|\n<\|end\|>|<\|eot\|>|"
    r"<\|begin\|>tool|<\|start\|>functions|<\|message_sep\|>\n\nfunction result|\[RESULT"
)
TOOL = "get_weather"


@dataclass(frozen=True)
class Given:
    """A template's format and what a test has to know of it."""

    form: str
    many: bool = True  # whether it writes several calls
    free: bool = True  # whether text and thoughts may stand before a call as they are
    alike: bool = True  # whether the grammar writes calls just as the template does
    written: Callable | None = None  # a call, where the template does not write it


_prompter = cache(prompter)


def tool(schema):
    function = {"name": TOOL, "description": "Tells it.", "parameters": schema}
    return {"type": "function", "function": function}


def rendered(given, source, schema, several):
    """Return the format, an answer with these calls, and whether its prompt opened thoughts."""
    form = choose_format(source, TOKENS.get(given.form, set()))
    if given.written:
        return form, given.written(several), False
    calls = [
        {
            "id": f"call_abcdefgh{i}",
            "type": "function",
            "function": {"name": TOOL, "arguments": json.dumps(arguments)},
        }
        for i, arguments in enumerate(several)
    ]
    ask = {"role": "user", "content": "Weather?"}
    call = {"role": "assistant", "content": None, "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "RESULT"} for c in calls]

    def text(messages, generation):
        sent = {"messages": messages, "tools": [tool(schema)], "add_generation_prompt": generation}
        body = decode(json.dumps(sent).encode(), ChatBody)
        return _prompter(source, given.form).render(body).text

    whole, before = text([ask, call, *results], False), text([ask], True)
    same = (i for i, pair in enumerate(zip(whole, before, strict=False)) if pair[0] != pair[1])
    at = next(same, min(len(before), len(whole)))
    if whole.rfind("<", 0, at) > whole.rfind(">", 0, at):
        at = whole.rfind("<", 0, at)  # the prompt and the answer begin a mark with the same letters
    answer = whole[at:]
    end = ENDS.search(answer)
    answer = answer[: end.start()] if end else answer
    thinking = form.opens(whole[:at])
    return form, answer if thinking else answer.removeprefix(form.think[1]), thinking


def read(form, pieces, schema, thinking=False, decode=json.loads):
    """Return thoughts, content and calls; numbers, ids and order are checked."""
    parser = form.parser({TOOL: schema}, thinking)
    deltas = [d for piece in pieces for d in parser.push(piece)] + parser.finish()
    begun = [d for d in deltas if d.call]
    assert [d.index for d in begun] == list(range(len(begun)))
    assert len({d.id for d in begun}) == len(begun) == parser.n_calls
    arguments = ["" for _ in begun]
    for d in deltas:
        if d.kind == "call":
            arguments[d.index] += d.call.arguments if d.call else d.text
    said = ["".join(d.text for d in deltas if d.kind == kind) for kind in ("reasoning", "content")]
    names = [d.call.name for d in begun]
    return *said, list(zip(names, map(decode, arguments), strict=True))


class Bytes:
    """A tokenizer of bytes, an end, and some marks as control tokens."""

    def __init__(self, marks):
        whole = [m for m in marks if re.fullmatch(r"[<｜]\S*[>｜]|\[\S*\]", m)]
        self.marks = [m for m in whole if not any(o != m and o in m for o in whole)]
        self.ids = {mark: 257 + i for i, mark in enumerate(self.marks)}
        self.n_vocab, self.eos_id, self.bos_id = 257 + len(self.marks), 256, None
        self.eog_ids = frozenset({256})

    def token_bytes(self, token):
        return bytes([token]) if token < 256 else ["<end>", *self.marks][token - 256].encode()

    def is_control(self, token):
        return token >= 256

    def encode(self, text, **more):
        split = (
            re.split(f"({'|'.join(map(re.escape, self.marks))})", text) if self.marks else [text]
        )
        return [t for p in split for t in ([self.ids[p]] if p in self.ids else p.encode())]


def accepted(matcher, tokens, text):
    """Return how much of a text a grammar takes, and whether it may end there."""
    taken = b""
    for token in tokens.encode(text):
        if not matcher.allows(token):
            break
        matcher.accept(token)
        taken += tokens.token_bytes(token)
    return taken.decode("utf-8", "replace"), matcher.allows(256)


def _python(several):
    calls = (", ".join(f"{k}={v!r}" for k, v in arguments.items()) for arguments in several)
    return f"<|tool_call_start|>[{', '.join(f'{TOOL}({call})' for call in calls)}]<|tool_call_end|>"


def _granite(several):
    return "<|tool_call|>" + json.dumps([{"name": TOOL, "arguments": a} for a in several])


TEMPLATES = {
    "Apertus-8B-Instruct": Given("apertus"),
    "Apriel-1.6-15b-Thinker-fixed": Given("apriel", alike=False),
    "ByteDance-Seed-OSS": Given("seed"),
    "Cohere2MoE": Given("cohere"),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": Given("cohere"),
    "GLM-4.6": Given("glm"),
    "GigaChat3-10B-A1.8B": Given("gigachat", many=False),
    "GigaChat3.1-10B-A1.8B": Given("gigachat", many=False),
    "Kimi-K2-Instruct": Given("kimi"),
    "Kimi-K2-Thinking": Given("kimi"),
    "LFM2-8B-A1B": Given("lfm2", alike=False, written=_python),
    "LFM2.5-8B-A1B": Given("lfm2", alike=False, written=_python),
    "MiMo-VL": Given("hermes"),
    "MiniMax-M1": Given("minimax_m1"),
    "MiniMax-M3": Given("minimax_m3"),
    "Mistral-Small-3.2-24B-Instruct-2506": Given("mistral"),
    "NVIDIA-Nemotron-Nano-v2": Given("nemotron"),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": Given("hermes"),
    "Qwen-QwQ-32B": Given("hermes"),
    "Qwen-Qwen2.5-7B-Instruct": Given("hermes"),
    "Qwen3-Coder": Given("qwen"),
    "Qwen3.5-4B": Given("qwen"),
    "Spark2.5": Given("glm"),
    "StepFun3.5-Flash": Given("qwen", alike=False),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": Given("deepseek"),
    "deepseek-ai-DeepSeek-V3.1": Given("deepseek"),
    "deepseek-ai-DeepSeek-V4": Given("dsml"),
    "deepseek-ai-DeepSeek-V4-Flash-0731": Given("dsml"),
    "google-gemma-4-31B-it-interleaved": Given("gemma4"),
    "ibm-granite-granite-3.3-2B-Instruct": Given("granite", written=_granite),
    "ibm-granite-granite-4.0": Given("hermes"),
    "inclusionai-ling-3.0-flash": Given("glm", alike=False),
    "llama-cpp-deepseek-r1": Given("deepseek"),
    "meetkai-functionary-medium-v3.1": Given("functionary"),
    "meetkai-functionary-medium-v3.2": Given("functionary_v32", free=False),
    "meta-llama-Llama-3.2-3B-Instruct": Given("llama", many=False, free=False),
    "meta-llama-Llama-3.3-70B-Instruct": Given("llama", many=False, free=False),
    "mistralai-Ministral-3-14B-Reasoning-2512": Given("mistral"),
    "mistralai-Mistral-Nemo-Instruct-2407": Given("mistral", alike=False),
    "muse-glimmer": Given("muse", free=False),
    "openai-gpt-oss-120b": Given("harmony", alike=False, many=False, free=False),
    "poolside-Laguna-S-2.1": Given("glm"),
    "poolside-Laguna-XS-2.1": Given("glm"),
    "tencent-Hy3": Given("hunyuan_3"),
    "unsloth-Apriel-1.5": Given("apriel", alike=False),
    "upstage-Solar-Open-100B": Given("solar"),
}
