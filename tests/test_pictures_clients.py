"""Real client packages send a picture: three turns, streamed, stopped early, asked again."""

import base64

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("PIL")

from picturemaker import given_eyes, picture_bytes, tiny
from servers import listening

pytestmark = pytest.mark.slow

SHORT = {"model": "any", "max_tokens": 12, "temperature": 0}
TURNS = ("What is it?", "Sure?", "Why?")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with given_eyes(tiny(tmp_path_factory.mktemp("seeing"), n_ctx=4096)) as model:
        yield model


@pytest.fixture
def server(model):
    with listening(model) as (url, _):
        yield url


class OpenAI:
    """The package openai, chat completions."""

    package = "openai"

    def __init__(self, package, url):
        client = package.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.create, self.options = client.chat.completions.create, SHORT

    def picture(self, data):
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}

    def text(self, reply):
        return reply.choices[0].message.content

    def new_text(self, chunk):
        return chunk.choices[0].delta.content or "" if chunk.choices else ""


class Responses(OpenAI):
    """The same, responses."""

    def __init__(self, package, url):
        client = package.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.create = lambda messages, **more: client.responses.create(input=messages, **more)
        self.options = {"model": "any", "max_output_tokens": 12, "temperature": 0}

    def picture(self, data):
        return {"type": "input_image", "image_url": f"data:image/png;base64,{data}"}

    def text(self, reply):
        return reply.output_text

    def new_text(self, event):
        return event.delta if event.type == "response.output_text.delta" else ""


class Anthropic:
    """The package anthropic."""

    package = "anthropic"

    def __init__(self, package, url):
        client = package.Anthropic(base_url=url, api_key="none", max_retries=0)
        self.create = client.messages.create
        said = {"temperature": 0}  # which newer packages know no more
        self.options = {"model": "any", "max_tokens": 12, "extra_body": said}

    def picture(self, data):
        source = {"type": "base64", "media_type": "image/png", "data": data}
        return {"type": "image", "source": source}

    def text(self, reply):
        return "".join(block.text for block in reply.content)

    def new_text(self, event):
        return event.delta.text if event.type == "content_block_delta" else ""


@pytest.mark.parametrize("kind", [OpenAI, Responses, Anthropic], ids=lambda kind: kind.__name__)
def test_three_turns_about_a_picture(kind, model, server):
    client, eyes = kind(pytest.importorskip(kind.package), server), model.gallery.eyes
    seed = ["OpenAI", "Responses", "Anthropic"].index(kind.__name__) + 70
    data = base64.b64encode(picture_bytes(40, 48, seed=seed)).decode()
    looked, messages, most = eyes.looked, [], 0
    for turn in TURNS:
        word = "input_text" if kind is Responses else "text"
        content = [{"type": word, "text": turn}]
        if not messages:
            content.insert(0, client.picture(data))
        messages.append({"role": "user", "content": content})
        with client.create(messages=messages, stream=True, **client.options) as stream:
            pieces = [client.new_text(event) for event in stream]
        with client.create(messages=messages, stream=True, **client.options) as stream:
            next(text for text in map(client.new_text, stream) if text)  # then stopped
        again = client.text(client.create(messages=messages, **client.options))
        most = max(most, len(list(filter(None, pieces))))
        assert "".join(pieces) == again
        messages.append({"role": "assistant", "content": again})
    assert eyes.looked == looked + 1  # at the first question alone
    assert most > 1  # it came in pieces
