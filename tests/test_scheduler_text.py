"""The scheduler's text: stop strings and half characters held back, ends, log-probabilities.

The engine is a script: it says the same tokens after every prompt.
"""

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from schedules import Scripted, ask, byte_tokens, drain, said

import ggq
from ggq.errors import ModelError
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.sampling import SamplingParams


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    with ggq.load(path, vocab_only=True) as model:
        yield model


def test_stop_strings_are_held_back_and_cut(model):
    script = byte_tokens(model, "one STOP two")
    answer = said(model, script, stop=("STOP", "never"), max_tokens=12)
    assert answer.text[0] == "one "
    assert answer.ends == {0: "stop"}
    assert not any("S" in piece.text for piece in answer.pieces)
    assert said(model, script, stop=("TWO",), max_tokens=12).text[0] == "one STOP two"
    assert said(model, script, stop=("STOX",), max_tokens=7).text[0] == "one STO"


def test_characters_come_whole(model):
    script = byte_tokens(model, "€ü")
    answer = said(model, script, max_tokens=5)
    assert [p.text for p in answer.pieces if p.text] == ["€", "ü"]
    assert said(model, script, max_tokens=4).text[0] == "€\ufffd"


def test_end_of_generation_ends_and_is_silent(model):
    eos = model.tokenizer.eos_id
    script = [*byte_tokens(model, "hi"), eos, *byte_tokens(model, "more")]
    answer = said(model, script)
    assert (answer.text[0], answer.ends[0]) == ("hi", "stop")
    shown = said(model, script, shown=frozenset({eos}))
    assert (shown.text[0], shown.ends[0]) == ("hi</s>", "stop")
    assert said(model, script, ignore_eos=True, max_tokens=2).ends[0] == "length"


def test_logprobs_are_those_before_sampling(model):
    script = byte_tokens(model, "hello")
    answer = said(model, script, logprobs=3, max_tokens=5)
    assert len([p for p in answer.pieces if p.logprobs]) == 5
    n = model.tokenizer.n_vocab
    expected = 9.0 - np.log(np.exp(9.0) + (n - 1))
    for piece, token in zip(answer.pieces, script, strict=True):
        assert piece.token_id == token
        assert piece.logprobs.logprob == pytest.approx(expected, abs=1e-6)
        assert piece.logprobs.top[0] == (token, pytest.approx(expected, abs=1e-6))
        assert len(piece.logprobs.top) == 3


def test_seeded_answers_do_not_depend_on_neighbours(model):
    script = byte_tokens(model, "what a seed says when others draw, too")
    hot = SamplingParams(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0)

    def tokens_beside(n_others):
        s = Scheduler(Scripted(script, model.tokenizer.n_vocab), model.tokenizer, n_slots=4)
        for i in range(n_others):
            ask(s, [9, 8, 7 + i], params=hot.replace(seed=i), max_tokens=5 + 7 * i)
            s.step()
        options = {"max_tokens": 30, "ignore_eos": True, "logprobs": 0}
        _, answer = ask(s, [5, 5, 5, 5], params=hot.replace(seed=77), **options)
        drain(s)
        return [piece.token_id for piece in answer.pieces]

    alone = tokens_beside(0)
    assert len(alone) == 30
    assert alone != script[:30]
    assert tokens_beside(1) == tokens_beside(3) == alone


def test_no_token_where_none_is_asked_for(model):
    answer = said(model, byte_tokens(model, "hi"), max_tokens=0)
    assert (answer.text[0], answer.ends) == ("", {0: "length"})


def test_logits_that_are_not_finite(model):
    class Broken(Scripted):
        def step(self, parts):
            return super().step(parts) * np.nan

    s = Scheduler(Broken([5], model.tokenizer.n_vocab), model.tokenizer, n_slots=1)
    _, answer = ask(s, [5, 5, 5, 5], max_tokens=1)
    drain(s)
    assert isinstance(answer.errors[0], ModelError)
