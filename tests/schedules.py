"""What scheduler tests share: listeners, a spying engine and one that says what it is told to.

Not a test itself.
"""

from types import SimpleNamespace

import numpy as np

from ggq.models.layers.base import Memory
from ggq.runtime.batching.requests import Request
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.cache.kvcache import KVCache
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine.engine import Engine
from ggq.runtime.generation.drafting.speculation import Speculation
from ggq.runtime.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0)


class Answers:
    """Collects what a listener hears, per choice."""

    def __init__(self):
        self.text, self.ends, self.errors, self.pieces = {}, {}, [], []

    def __call__(self, event):
        self.pieces.append(event.piece)
        self.text[event.choice] = self.text.get(event.choice, "") + event.piece.text
        if event.piece.finish_reason:
            assert event.choice not in self.ends, "a choice ends once"
            self.ends[event.choice] = event.piece.finish_reason
        if event.error:
            self.errors.append(event.error)


class Spy:
    """An engine that notes the tokens of each step: {sequence: ids}."""

    def __init__(self, engine):
        self._engine, self.steps = engine, []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def step(self, parts):
        self.steps.append([part.ids.tolist() for part in parts])
        return self._engine.step(parts)

    @property
    def n_tokens(self):
        return sum(len(ids) for step in self.steps for ids in step)


def drain(s, limit=2000):
    for _ in range(limit):
        s.step()
        if not s.n_running and not s.n_waiting:
            return
    raise AssertionError("the scheduler does not come to an end")


def ask(s, ids, listener=None, **options):
    listener = listener or Answers()
    options.setdefault("params", GREEDY)
    return s.submit(Request(ids, **options), listener), listener


def free_all(s):
    s._store.clear()
    return s.engine.cache.free_positions == s.engine.cache.n_pages * PAGE


class Always(Speculation):
    """Guesses in every step, whatever it costs."""

    def _affordable(self, writer, n_tokens, n_answers, most):
        return most

    def _best(self, chances, n_tokens, n_answers):
        return len(chances)


class Script:
    """A back end without a model: after the prompt, every sequence says the same tokens."""

    max_tokens, profile = 256, None

    def __init__(self, script, n_vocab, n_ctx):
        self.script, self.n_vocab = script, n_vocab
        self.cache = KVCache([Memory(1, 16, 16)], n_ctx)

    def run(self, parts, output):
        rows = []
        for part in parts:
            end = part.sequence.length + len(part.ids)
            if part.wanted[-1]:
                row = np.zeros(self.n_vocab, np.float32)
                if not hasattr(part.sequence, "prompt_end"):
                    part.sequence.prompt_end = end
                row[self.script[end - part.sequence.prompt_end]] = 9.0
                rows.append(row)
        return np.array(rows, np.float32).reshape(-1, self.n_vocab)

    def close(self):
        pass


class Scripted(Engine):
    """An engine that says the script."""

    def __init__(self, script, n_vocab, n_ctx=256):
        readout = SimpleNamespace(output_head=True)
        hp = SimpleNamespace(causal=True, n_vocab=n_vocab, readout=readout)
        super().__init__(hp, Script(script, n_vocab, n_ctx))


def said(model, script, **options):
    tokenizer = model.tokenizer
    s = Scheduler(Scripted(script, tokenizer.n_vocab), tokenizer, n_slots=1)
    _, answer = ask(s, [5, 5, 5, 5], **options)
    drain(s)
    return answer


def byte_tokens(model, text):
    first = model.tokenizer.ids["<0x00>"]
    return [first + b for b in text.encode()]


def answered_like_alone(model, shared, own, parting, n_ctx, batch):
    """Check ``parting`` prompts with the same first tokens, and more; return (prompts, scheduler).

    Each answer is what the model gives for that prompt alone. The last prompt is the shared part.
    """
    n_tokens = model.tokenizer.n_vocab - 3
    start = [3 + 7 * i % n_tokens for i in range(shared)]
    prompts = [start + [3 + (11 * i + k) % n_tokens for i in range(own)] for k in range(parting)]
    prompts += [prompts[0], prompts[0] + [5, 6, 7], start]
    alone = ["".join(model.generate(p, max_tokens=8, temperature=0.0)) for p in prompts]
    s = Scheduler(Spy(model.engine), model.tokenizer, n_slots=3, n_ctx=n_ctx, batch=batch)
    answers = []
    for i, prompt in enumerate(prompts):
        answers.append(ask(s, prompt, max_tokens=8)[1])
        for _ in range(i % 4):
            s.step()
    drain(s)
    assert [a.text[0] for a in answers] == alone
    return prompts, s
