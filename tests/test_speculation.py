"""Guesses change nothing: the same pieces with and without, on every kind of layer, alone or not.

The drafter knows the answer and mixes wrong tokens in, so that every step has guesses of each kind.
"""

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from schedules import Always, ask, drain

import ggq
from ggq.errors import UsageError
from ggq.runtime.batching.savings import Savings
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.generation.drafting.base import Draft
from ggq.runtime.generation.drafting.ngram import NGram
from ggq.runtime.generation.generation import Options, generate
from ggq.runtime.sampling import SamplingParams

N_TOKENS = 90  # of an answer: over the end of a page
KINDS = {  # type of file: one model of each kind of layer
    "llama": "Q4_0",
    "gemma2": "Q4_K_M",  # windows
    "gpt-oss": "Q4_0",  # windows, experts
    "lfm2": "Q4_0",  # convolutions
    "qwen35moe": "F16",  # a delta net, experts
    "granite h": "F16",  # Mamba 2
    "deepseek2": "Q4_K_M",  # latent attention
}
WAYS = {
    "greedy": {"temperature": 0.0},
    "drawn": {"temperature": 1.5, "seed": 3, "top_k": 0},
    "penalties": {"temperature": 1.2, "seed": 4, "repeat_penalty": 1.3, "dry_multiplier": 0.8},
    "mirostat": {"temperature": 1.0, "seed": 5, "mirostat": 2},
}


class Knowing:
    """A drafter that knows whole texts and guesses them, some tokens wrong."""

    prior, thinks = (0.5,), False

    def __init__(self, texts, n_vocab):
        self.texts, self.n_vocab, self.rng = texts, n_vocab, np.random.default_rng(0)
        self.guesses = self.wrong = 0

    def start(self):
        return self

    def guess(self, ids, limit):
        text = next((t for t in self.texts if list(t[: len(ids)]) == list(ids)), None)
        assert text is not None, "the text is another one"
        n = min(int(self.rng.integers(0, 9)), limit)
        guessed = np.array(text[len(ids) : len(ids) + n], np.int64)
        wrong = self.rng.random(len(guessed)) < 0.25
        guessed[wrong] = (guessed[wrong] + 1) % self.n_vocab
        self.guesses, self.wrong = self.guesses + len(guessed), self.wrong + int(wrong.sum())
        return Draft(guessed.tolist(), [0] * len(guessed))

    def close(self):
        pass


class Even:
    """A grammar: even tokens only."""

    def allows(self, token):
        return token % 2 == 0

    def mask(self, logits):
        return np.where(np.arange(len(logits)) % 2, -np.inf, logits).astype(np.float32)

    def accept(self, token):
        assert self.allows(token)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_ctx=512)
    with ggq.load(path, n_ctx=2048, threads=1) as model:
        yield model


def prompt_of(model, number, n=60):
    return np.random.default_rng(number).integers(3, model.tokenizer.n_vocab, n).tolist()


def told(pieces):
    return [(p.token_id, p.text, p.finish_reason, p.logprobs, p.stop) for p in pieces]


def write(model, session, prompt, params, **more):
    """Return what one answer tells, and its tokens."""
    stop, constraint = more.pop("stop", ()), more.pop("constraint", None)
    options = Options(logprobs=3, constraint=constraint, **more)
    pieces = generate(session, model.tokenizer, prompt, params, N_TOKENS, stop, options)
    return told(pieces), options.stats


def both(model, params, make=None, stop=(), ignore_eos=True):
    """Check two turns of a session with guesses against those without; return the drafter."""
    model.speculation, plain, known = None, [], []
    session, prompt = model.session(), prompt_of(model, 1)
    for _ in range(2):
        more = {"constraint": make and make(), "stop": stop, "ignore_eos": ignore_eos}
        answer, stats = write(model, session, prompt, params, **more)
        plain.append(answer)
        known.append([*prompt, *stats.ids, *prompt_of(model, 9, 40)])
        prompt = known[-1][: len(prompt) + len(stats.ids)] + prompt_of(model, 2, 5)
    session.close()
    drafter = Knowing(known[::-1], model.tokenizer.n_vocab)
    recurrent = bool(model.engine.cache.state_floats)
    model.speculation = Always(drafter, replays=recurrent)
    session, prompt = model.session(), prompt_of(model, 1)
    for number in range(2):
        more = {"constraint": make and make(), "stop": stop, "ignore_eos": ignore_eos}
        answer, stats = write(model, session, prompt, params, **more)
        assert answer == plain[number]
        assert 0 <= stats.accepted_tokens <= stats.drafted_tokens
        assert session.ids == [*prompt, *stats.ids][: len(session.ids)]
        prompt = [*prompt, *stats.ids, *prompt_of(model, 2, 5)]
    session.close()
    model.speculation = None
    return drafter


def beside(model, ways, n_slots=3):
    """Check answers written side by side with guesses against those of each alone."""
    asked = [
        (prompt_of(model, i, 20 + 13 * i), SamplingParams(**way)) for i, way in enumerate(ways)
    ]
    found = {}
    for speculation in (None, Always):
        drafter = None
        if speculation:
            texts = [[*asked[i][0], *ids] for i, ids in found["tokens"].items()]
            drafter = Knowing(texts, model.tokenizer.n_vocab)
            replays = bool(model.engine.cache.state_floats)
            speculation = Always(drafter, replays=replays)
        s = Scheduler(model.engine, model.tokenizer, n_slots=n_slots, savings=Savings(speculation))
        options = {"max_tokens": N_TOKENS, "ignore_eos": True, "logprobs": 2}
        answers = []
        for ids, params in asked:
            answers.append(ask(s, ids, params=params, **options)[1])
            s.step()
        drain(s)
        s._store.clear()
        pieces = [[p for p in a.pieces if p.token_id is not None] for a in answers]
        if speculation:
            assert [told(each) for each in pieces] == found["pieces"]
            assert s.stats.drafted_tokens > s.stats.accepted_tokens > 0
        found["pieces"] = [told(each) for each in pieces]
        found["tokens"] = {i: [p.token_id for p in each] for i, each in enumerate(pieces)}
    assert drafter.wrong


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_the_same_with_guesses(tiny, way):
    drafter = both(tiny, SamplingParams(**WAYS[way]))
    assert 0 < drafter.wrong < drafter.guesses


def test_a_grammar_sees_the_same_tokens(tiny):
    both(tiny, SamplingParams(temperature=1.0, seed=1), Even)


def test_an_answer_ends_at_the_same_place(tiny):
    params = SamplingParams(temperature=1.3, seed=2)
    tiny.speculation = None
    session = tiny.session()
    answer, _ = write(tiny, session, prompt_of(tiny, 1), params, ignore_eos=True)
    session.close()
    text = "".join(piece[1] for piece in answer)
    both(tiny, params, stop=(text[40:43],))
    both(tiny, params, ignore_eos=False)


def test_answers_side_by_side_are_the_same_with_guesses(tiny):
    beside(tiny, [*WAYS.values(), *WAYS.values()])


@pytest.mark.parametrize("n_ctx", [128, 131])
def test_an_answer_fills_the_context_to_its_end(tmp_path, n_ctx):
    path = make_tiny_llama(tmp_path / "tiny.gguf", n_ctx=512)
    with ggq.load(path, n_ctx=n_ctx, threads=1, draft="off") as model:
        prompt, params = prompt_of(model, 1, 100), SamplingParams(temperature=0.0)
        found = []
        for _ in range(2):
            session, options = model.session(), Options(ignore_eos=True)
            pieces = generate(session, model.tokenizer, prompt, params, options=options)
            found.append(told(pieces))
            whole = [*prompt, *options.stats.ids]
            assert len(whole) == n_ctx + 1
            session.close()
            model.speculation = Always(Knowing([[*whole, *whole]], model.tokenizer.n_vocab))
        assert found[0] == found[1]
        beginning = {"ignore_eos": True, "params": params, "logprobs": 0}
        model.speculation = None
        savings = Savings(Always(Knowing([[*whole, *whole]], model.tokenizer.n_vocab)))
        s = Scheduler(model.engine, model.tokenizer, n_slots=1, n_ctx=n_ctx, savings=savings)
        _, answer = ask(s, prompt, **beginning)
        drain(s)
        s._store.clear()
        assert [p.token_id for p in answer.pieces if p.token_id is not None] == whole[100:]


def test_who_breaks_off_leaves_a_session_without_wrong_tokens(tiny):
    tiny.speculation, session = None, tiny.session()
    prompt, params = prompt_of(tiny, 1), SamplingParams(temperature=0.0)
    _, stats = write(tiny, session, prompt, params, ignore_eos=True)
    session.close()
    whole = [*prompt, *stats.ids]
    tiny.speculation, session = Always(Knowing([whole], tiny.tokenizer.n_vocab)), tiny.session()
    for n in range(1, 40, 3):
        options = Options(ignore_eos=True)
        pieces = generate(session, tiny.tokenizer, prompt, params, N_TOKENS, options=options)
        for _ in range(n):
            next(pieces)
        pieces.close()
        assert session.ids == whole[: len(session.ids)]
        assert options.stats.ids == whole[len(prompt) : len(prompt) + n]
    session.close()
    tiny.speculation = None


@pytest.mark.slow
@pytest.mark.parametrize("label", KINDS)
def test_all_kinds_of_layers_take_guesses_back(label, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from invariance import make_files
    from tinymodels import TINY

    tiny = next(t for t in TINY if t.label == label)
    (path,) = make_files(tiny, tmp_path, [KINDS[label]])
    with ggq.load(path, n_ctx=1024, threads=2) as model:
        drafter = both(model, SamplingParams(**WAYS["drawn"]))
        assert 0 < drafter.wrong < drafter.guesses
        beside(model, list(WAYS.values())[:3])


# -- what is asked for


def test_a_smaller_model_drafts(tmp_path, monkeypatch):
    monkeypatch.setattr("ggq.runtime.generation.drafting.model._SURE", 0.0)  # weights are random
    big = make_tiny_llama(tmp_path / "big.gguf", n_ctx=256)
    found = []
    for draft in ("off", big):
        with ggq.load(big, draft=draft, draft_max=4, threads=1) as model:
            session, params = model.session(), SamplingParams(temperature=0.0)
            if model.speculation:
                model.speculation = Always(model.speculation.drafter, most=4)
            found.append(write(model, session, model.tokenize("the end"), params, ignore_eos=True))
    (plain, _), (drafted, stats) = found
    assert drafted == plain
    assert stats.accepted_tokens == stats.drafted_tokens > N_TOKENS / 2


def test_what_cannot_draft_is_refused_in_a_line(tmp_path):
    path = make_tiny_llama(tmp_path / "a.gguf")
    with pytest.raises(
        UsageError, match=r"draft nowhere\.gguf: neither off, ngram, mtp nor a model"
    ):
        ggq.load(path, draft="nowhere.gguf")
    with pytest.raises(UsageError, match="draft_max: 1 to 64, not 65"):
        ggq.load(path, draft_max=65)
    other = make_tiny_llama(tmp_path / "b.gguf", vocab="bpe")
    with pytest.raises(
        UsageError, match=r"b\.gguf cannot draft for .*a\.gguf: it has other tokens"
    ):
        ggq.load(path, draft=other)


def test_text_itself_is_the_default(tmp_path):
    path = make_tiny_llama(tmp_path / "a.gguf")
    with ggq.load(path) as model:
        assert isinstance(model.speculation.drafter, NGram)
    with ggq.load(path, draft="off") as model:
        assert model.speculation is None
