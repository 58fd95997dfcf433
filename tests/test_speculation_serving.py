"""Guesses in the server: the same answers over HTTP, counted in usage, timings and metrics."""

import re

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")
pytest.importorskip("llguidance", reason="the extra serve is not installed")

from ggufmaker import make_tiny_llama
from schedules import Always, ask, drain
from servers import CHAT, HI, WEATHER, events, serving

import ggq
from ggq.runtime.batching.savings import Savings
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.generation.drafting.ngram import NGram
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.server.slots import make_scheduler

PEOPLE = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "minItems": 6,
            "maxItems": 6,
            "items": {
                "type": "object",
                "properties": {"name": {"enum": ["Ada", "Eve"]}, "age": {"enum": [1, 2]}},
                "required": ["name", "age"],
            },
        }
    },
    "required": ["people"],
}
BODIES = {
    "greedy": {"temperature": 0, "max_tokens": 60, "ignore_eos": True},
    "drawn": {"temperature": 1.4, "seed": 5, "n": 2, "logprobs": True, "top_logprobs": 3},
    "schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PEOPLE}},
        "seed": 2,
        "max_tokens": 300,
    },
    "grammar": {"grammar": 'root ::= ("so on and so on, ")+ "end"', "seed": 3, "max_tokens": 80},
    "tools": {"tools": [WEATHER], "tool_choice": "required", "seed": 4, "max_tokens": 200},
    "penalties": {"repeat_penalty": 1.2, "frequency_penalty": 0.3, "seed": 6, "stop": ["e", "qu"]},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return make_tiny_llama(folder / "t.gguf", n_ctx=1024, vocab="bpe")


def model(path, **options):
    return ggq.load(path, n_ctx=4096, threads=1, **options)


def answers(client):
    """Return the choices of each body, without what is drawn anew, and usage in all."""
    found, accepted, rejected = {}, 0, 0
    for name, body in BODIES.items():
        answer = client.post(CHAT, json={"messages": HI, "max_tokens": 40, **body}).json()
        assert "choices" in answer, answer
        text = str(answer["choices"])
        found[name] = re.sub(r"'id': '[^']*'", "", text), answer["usage"]["completion_tokens"]
        details = answer["usage"]["completion_tokens_details"]
        accepted += details["accepted_prediction_tokens"]
        rejected += details["rejected_prediction_tokens"]
        if body.get("n", 1) == 1:
            timings = answer["timings"]
            assert timings["draft_n_accepted"] == details["accepted_prediction_tokens"]
            assert timings["draft_n"] == sum(details.values())
    return found, accepted, rejected


def test_answers_over_http_are_the_same_and_guesses_are_counted(path):
    with model(path, draft="off") as plain, serving(plain) as client:
        want, accepted, rejected = answers(client)
        assert (accepted, rejected) == (0, 0)
    with model(path) as guessing:
        guessing.speculation = Always(NGram())
        savings = Savings(guessing.speculation)
        scheduler = Scheduler(guessing.engine, guessing.tokenizer, savings=savings)
        with serving(guessing, scheduler) as client:
            found, accepted, rejected = answers(client)
            assert found == want
            assert accepted > 100
            assert rejected > 0
            text = client.get("/metrics").text
            assert f"ggq_accepted_tokens_total {float(accepted)}" in text
            assert f"ggq_drafted_tokens_total {float(accepted + rejected)}" in text
            body = {"messages": HI, **BODIES["greedy"], "stream": True}
            usage = {"stream_options": {"include_usage": True}}
            last = events(client.post(CHAT, json=body | usage))[-1]
            assert last["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] > 0


def test_a_model_drafts_for_several_answers(path, monkeypatch):
    """Its sequences are as many as the answers, and go when they do."""
    monkeypatch.setattr("ggq.runtime.generation.drafting.model._SURE", 0.0)  # weights are random
    with model(path, draft="off") as alone:
        prompts = [alone.tokenize(f"once {i} upon a time " * (i + 1)) for i in range(5)]
        want = ["".join(alone.generate(p, max_tokens=30, temperature=0.0)) for p in prompts]
    with ggq.load(path, n_ctx=256, threads=1, draft=path) as model_:
        small = model_.draft_model
        speculation = Always(model_.speculation.drafter)
        model_.speculation = speculation
        s = make_scheduler(model_, n_slots=3)
        assert small.n_ctx == 3 * 256
        found = [ask(s, p, max_tokens=30, params=SamplingParams(temperature=0.0)) for p in prompts]
        drain(s)
        assert [answer.text[0] for _, answer in found] == want
        assert s.stats.accepted_tokens == s.stats.drafted_tokens > 0  # it is the same model
        speculation.close()
        assert small.engine.cache.free_positions == small.engine.cache.n_pages * 64
        s.close()
