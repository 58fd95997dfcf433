"""What server tests share: an application over a tiny or a scripted model, and SSE read back.

Not a test itself.
"""

import contextlib
import json
import threading
import time

from schedules import Scripted
from starlette.testclient import TestClient

from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.server.app import create_app
from ggq.runtime.server.hosting.single import OneModel
from ggq.runtime.server.service import Service
from ggq.runtime.server.settings import Settings

HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CHAT = "/v1/chat/completions"


def make_app(model, scheduler, **settings):
    """Return the application of one model."""
    settings = Settings(**{"model_id": "tiny", **settings})
    return create_app(OneModel(Service(model, scheduler, settings)))


@contextlib.contextmanager
def serving(model, scheduler=None, **settings):
    """Yield a test client of an application; close it and see that nothing is left."""
    scheduler = scheduler or Scheduler(model.engine, model.tokenizer, n_slots=4)
    app = make_app(model, scheduler, **settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.scheduler = scheduler
        yield client
    assert scheduler.n_running == scheduler.n_waiting == 0


@contextlib.contextmanager
def saying(model, text, **settings):
    """Yield a client of a model that answers everything with ``text``."""
    tokenizer = model.tokenizer
    script = [*tokenizer.encode(text, add_special=False, parse_special=True), tokenizer.eos_id]
    engine = Scripted(script, tokenizer.n_vocab, n_ctx=4096)
    with serving(model, Scheduler(engine, tokenizer, n_slots=4), **settings) as client:
        yield client


def events(response):
    """Return the JSON of a stream's data lines, without the last [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [b for b in response.text.split("\n\n") if b and not b.startswith(":")]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(b.removeprefix("data: ")) for b in blocks[:-1]]


@contextlib.contextmanager
def listening(model, scheduler=None, **settings):
    """Yield the address of a real uvicorn server in a thread of this process."""
    import uvicorn

    scheduler = scheduler or Scheduler(model.engine, model.tokenizer, n_slots=4)
    app = make_app(model, scheduler, **settings)
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", scheduler
    finally:
        server.should_exit = True
        thread.join()
