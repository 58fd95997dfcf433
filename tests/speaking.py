"""A server whose model plays a part: for every request an answer is chosen, nothing else is said.

What is real: tokenizer, template, parser, streams, scheduler. What is not: the model, whose tokens
a constraint dictates. So whole sessions of agents run in a second, with prompts of any length.
"""

import contextlib
import json
import threading
import time

import numpy as np
from schedules import Scripted

from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.single import OneModel
from ggq.runtime.server.service import Service
from ggq.runtime.server.settings import Settings


class Dictated:
    """A constraint that allows one sequence of tokens."""

    def __init__(self, ids):
        self._left = list(ids)

    def allows(self, token):
        return token == self._left[0]

    def mask(self, logits):
        out = np.full(len(logits), -np.inf, np.float32)
        out[self._left[0]] = 0.0
        return out

    def accept(self, token):
        self._left = self._left[1:] or self._left


class Playing(Service):
    """A service whose answers ``play(body)`` writes; bodies that come are kept in ``heard``."""

    def __init__(self, model, scheduler, settings, play):
        super().__init__(model, scheduler, settings)
        self._play, self.heard = play, []

    def request(self, body, ids, client, **more):
        self.heard.append(body)
        text = self._play(body)
        if text is None:  # as the model would
            return super().request(body, ids, client, **more)
        tokenizer = self.tokenizer
        said = tokenizer.encode(text, add_special=False, parse_special=True)
        more["constraint"] = lambda: Dictated([*said, tokenizer.eos_id])
        return super().request(body, ids, client, **more)


def make_play(model, play, n_ctx=1 << 18, **settings):
    """Return a service that plays, in a context of ``n_ctx`` tokens."""
    tokenizer = model.tokenizer
    engine = Scripted([tokenizer.eos_id] * n_ctx, tokenizer.n_vocab, n_ctx=2 * n_ctx)
    scheduler = Scheduler(engine, tokenizer, n_slots=2, n_ctx=n_ctx)
    return Playing(model, scheduler, Settings(**{"model_id": "tiny", **settings}), play)


@contextlib.contextmanager
def playing(model, play, port=0, **settings):
    """Yield (address, service) of a real server in a thread of this process."""
    import uvicorn

    service = make_play(model, play, **settings)
    config = uvicorn.Config(create_app(OneModel(service)), port=port, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join()


def call(name, **arguments):
    """Return a call as a model of Hermes' kind writes it."""
    said = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{said}\n</tool_call>"


def turns(*answers):
    """Return a play: one answer after the other, counted by the results of tools that came back."""

    def play(body):
        messages = getattr(body, "messages", None)
        if not messages or not getattr(body, "tools", None):
            return "A title"
        rounds = 0
        for before, message in zip([None, *messages], messages, strict=False):
            rounds += message.role == "tool" and before.role != "tool"
        return answers[min(rounds, len(answers) - 1)]

    return play
