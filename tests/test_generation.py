"""The generation loop on a model that speaks by script."""

import math

import numpy as np
import pytest
from toy_model import END, HELLO, START, ToySession, ToyTokenizer, tokens

from ggq.errors import UsageError
from ggq.runtime.batching.requests import Request, Task, Ticket
from ggq.runtime.generation.answer import StopStrings
from ggq.runtime.generation.generation import Options, common_prefix, generate
from ggq.runtime.sampling import SamplingParams

TOKENIZER = ToyTokenizer()
PROMPT = tokens(START, "user\nHi", END, START, "assistant\n")
GREEDY = SamplingParams(temperature=0)


def run(script, session=None, prompt=PROMPT, **options):
    session = session or ToySession([script])
    extra = {k: options.pop(k) for k in list(options) if k in ("ignore_eos", "logprobs")}
    kept = Options(**extra)
    pieces = list(generate(session, TOKENIZER, prompt, GREEDY, options=kept, **options))
    assert [p.finish_reason for p in pieces[:-1]] == [None] * (len(pieces) - 1)
    return "".join(p.text for p in pieces), pieces[-1].finish_reason, kept.stats, pieces


def test_ends_at_end_of_turn_which_is_not_part_of_the_answer():
    text, reason, stats, pieces = run(tokens(HELLO, " you"))
    assert (text, reason) == ("Hello you", "stop")
    assert stats.ids == tokens(HELLO, " you")
    assert (stats.prompt_tokens, stats.evaluated_tokens, stats.generated_tokens) == (20, 20, 6)
    assert [p.token_id for p in pieces] == [*tokens(HELLO, " you"), None]


@pytest.mark.parametrize(
    ("limit", "text", "reason"),
    [
        (3, "abc", "length"),
        (0, "", "length"),
        (4, "abcd", "length"),
        (5, "abcd", "stop"),
        (None, "abcd", "stop"),
        (-1, "abcd", "stop"),
    ],
)
def test_max_tokens(limit, text, reason):
    session = ToySession([tokens("abcd")])
    assert run(None, session, max_tokens=limit)[:2] == (text, reason)
    assert len(session.evaluated[1:]) == max(0, len(text) - (reason == "length"))


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_full_context_ends_by_length(extra):
    session = ToySession([tokens("a" * 50)], n_ctx=len(PROMPT) + extra)
    text, reason, *_ = run(None, session)
    assert (text, reason) == ("a" * (extra + 1), "length")


def test_a_bias_on_no_token_is_named():
    session, beyond = ToySession([tokens("abcd")]), TOKENIZER.n_vocab
    params = SamplingParams(logit_bias={0: 1.0, beyond: 1.0})
    with pytest.raises(UsageError, match=f"logit_bias: token id {beyond} is outside"):
        next(generate(session, TOKENIZER, PROMPT, params))
    assert session.evaluated == []


def test_prompt_over_context_names_both_numbers():
    session = ToySession([[]], n_ctx=19)
    with pytest.raises(UsageError, match=r"20 tokens.*context of 19") as caught:
        generate(session, TOKENIZER, PROMPT)
    assert (caught.value.n_prompt, caught.value.n_ctx) == (20, 19)
    assert session.evaluated == []


@pytest.mark.parametrize(("prompt", "message"), [([], "empty"), ([1, 999], "999"), ([-1], "-1")])
def test_bad_prompts(prompt, message):
    with pytest.raises(UsageError, match=message):
        generate(ToySession([[]]), TOKENIZER, prompt)


def test_half_characters_are_held_back():
    text, _, _, pieces = run(tokens("é🙂"))
    assert [p.text for p in pieces] == ["", "é", "", "", "", "🙂", ""]
    assert text == "é🙂"
    text, reason, _, pieces = run(tokens("é"), max_tokens=1)
    assert (text, reason) == ("\ufffd", "length")


@pytest.mark.parametrize(
    ("script", "stop", "text", "reason"),
    [
        ("one STOP two", ["STOP"], "one ", "stop"),
        ("one STO two", ["STOP"], "one STO two", "stop"),
        ("one STO", ["STOP"], "one STO", "stop"),
        ("aab", ["ab"], "a", "stop"),
        ("abcd", ["cd", "bc"], "a", "stop"),
        ("abab", ["abc"], "abab", "stop"),
        ("\u00e9!x", ["é!"], "", "stop"),
    ],
)
def test_stop_strings_span_tokens(script, stop, text, reason):
    got, got_reason, _, pieces = run(tokens(script), stop=stop)
    assert (got, got_reason) == (text, reason)
    for piece in pieces:
        assert not any(s and s in piece.text for s in stop)


def test_stop_string_is_never_shown_in_part():
    _, _, stats, pieces = run(tokens("see STOP"), stop=["STOP"])
    assert [p.text for p in pieces] == ["s", "e", "e", " ", "", "", "", "", ""]
    assert stats.generated_tokens == 8


def test_stop_strings_against_plain_search():
    rng = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(rng.choice(list("ab"), 12))
        stop = ["".join(rng.choice(list("ab"), rng.integers(1, 5))) for _ in range(2)]
        watcher, out = StopStrings(stop), ""
        for char in text:
            out += watcher.push(char)
            if watcher.hit is not None:
                break
        out += watcher.flush()
        # the first end of a stop string in the text is where a stream must stop
        ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
        expected = (
            text[: min(start for end, start in ends if end == min(ends)[0])] if ends else text
        )
        assert out == expected, (text, stop)


def test_prefix_is_not_evaluated_again():
    session = ToySession([tokens("abc")])
    run(None, session)
    session.evaluated.clear()
    _, _, stats, _ = run(None, session)  # the same prompt: only its last token
    assert session.evaluated[0] == PROMPT[-1:]
    assert stats.evaluated_tokens == 1
    longer = [*PROMPT, *tokens("ab"), END, START, *tokens("assistant\n")]
    session.evaluated.clear()
    _, _, stats, _ = run(None, session, prompt=longer)
    assert session.evaluated[0] == longer[len(PROMPT) + 2 :]
    assert (stats.prompt_tokens, stats.evaluated_tokens) == (len(longer), 12)


def test_common_prefix():
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([1, 5, 3], [1, 2, 3]) == 1


def test_ignore_eos_goes_on():
    text, reason, stats, _ = run(tokens("ab"), max_tokens=5, ignore_eos=True)
    assert text.startswith("ab")
    assert reason == "length"
    assert len(stats.ids) == 5
    assert END not in stats.ids


def test_cancelled_by_the_session():
    session = ToySession([tokens("abcdef")])
    session.stop_after = 3
    assert run(None, session)[:2] == ("abc", "cancelled")
    session = ToySession([tokens("abcdef")])
    session.stop_after = 0
    assert run(None, session)[:2] == ("", "cancelled")


def test_logprobs_are_those_of_the_model():
    *_, pieces = run(tokens("a"), logprobs=2)
    report = pieces[0].logprobs
    assert report.top[0] == (ord("a"), pytest.approx(report.logprob))
    assert report.logprob == pytest.approx(-math.log1p(259 * math.exp(-50)), abs=1e-6)
    assert len(report.top) == 2
    assert run(tokens("a"))[3][0].logprobs is None


def test_logprobs_of_the_most_unlikely_are_exact():
    """Not clipped where a float32 probability ends, and the same from both who drive answers."""
    logits = np.zeros(TOKENIZER.n_vocab, np.float32)
    logits[ord("b")] = 174.125
    exact = -174.125 - math.log1p(259 * math.exp(-174.125))
    session = ToySession([[]])
    session.evaluate = lambda ids: (session.ids.extend(ids), logits)[1]
    params = SamplingParams(temperature=0, logit_bias={ord("a"): 1000.0})
    options = Options(logprobs=2)
    one, _ = generate(session, TOKENIZER, PROMPT, params, 1, options=options)
    task = Task(Ticket(Request(PROMPT, params, 1, logprobs=2), print), 0, np.array(PROMPT))
    task.begin(TOKENIZER, session.n_ctx)
    assert next(task.take(logits[None])).logprobs == one.logprobs
    assert one.token_id == ord("a")
    assert one.logprobs.logprob == pytest.approx(exact, abs=1e-9)
    assert one.logprobs.top[0] == (ord("b"), pytest.approx(0, abs=1e-9))


def test_seed_is_reported_and_repeats():
    flat = ToySession([[]])
    flat.evaluate = lambda ids: (flat.ids.extend(ids), np.zeros(260, np.float32))[1]
    first = Options()
    hot = SamplingParams(top_k=0, min_p=0, top_p=1)
    answer = list(generate(flat, TOKENIZER, PROMPT, hot, 20, options=first))
    again = hot.replace(seed=first.stats.seed)
    assert list(generate(flat, TOKENIZER, PROMPT, again, 20)) == answer
    assert first.stats.line().startswith("prompt 20 tok ")
