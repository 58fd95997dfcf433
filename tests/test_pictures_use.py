"""A picture in a conversation, on every path: Python, the server's interfaces, the terminal."""

import base64
import io

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="starlette's test client needs it")

from picturemaker import SEEING, given_eyes, picture_bytes, tiny
from servers import CHAT, events, serving

from ggq.errors import UsageError
from ggq.runtime.chat.screen import Printer
from ggq.runtime.chat.settings import Settings
from ggq.runtime.chat.terminal import Chat, dropped_picture
from ggq.runtime.generation.conversation import Conversation
from ggq.runtime.pictures.opening import open_picture, read_picture
from ggq.runtime.pictures.rendering import rendered
from ggq.runtime.template.template import ChatTemplate

LISTS = SEEING.replace("{% if m.content is string %}{{ m.content }}{% else %}", "").replace(
    "{% endif %}<|im_end|>", "<|im_end|>"
)
TEXTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content + '' }}<|im_end|>\n{% endfor %}"
)
PNG = picture_bytes(40, 48)
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
BARE = base64.b64encode(PNG).decode()
ASK = {"type": "text", "text": "What is it?"}
PART = {"type": "image_url", "image_url": {"url": URL}}
USER = {"role": "user", "content": [PART, ASK]}
N_TOKENS = 5 * 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with given_eyes(tiny(tmp_path_factory.mktemp("seeing"), n_ctx=4096)) as model:
        yield model


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    with tiny(tmp_path_factory.mktemp("blind"), n_ctx=1024) as model:
        yield model


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


def pictures_in(ids):
    return sum(i < 0 for i in ids)


# -- Python


def test_chat_takes_every_form_of_a_picture(model, tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    forms = [str(path), path, PNG, Image.open(io.BytesIO(PNG)), read_picture(path)]
    ids = model.chat_ids([USER])
    assert pictures_in(ids) == N_TOKENS
    for form in forms:
        content = [{"type": "image", "image": form}, ASK]
        found = model.chat_ids([{"role": "user", "content": content}])
        assert pictures_in(found) == N_TOKENS
        assert len(found) == len(ids)
    texts = [model.chat([USER], max_tokens=6, temperature=0.0) for _ in range(2)]
    assert "".join(texts[0]) == "".join(texts[1])
    other = {**PART, "image_url": {"url": URL.replace(BARE, _b64(picture_bytes(40, 48, seed=9)))}}
    assert model.chat_ids([{"role": "user", "content": [other, ASK]}]) != ids


def _b64(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}, "URLs are not fetched"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,x"}}, "expected data:image/"),
        ({"type": "image_url", "image_url": {"url": "data:;base64,@@"}}, "is no base64"),
        ({"type": "image_url", "image_url": {"url": "data:;base64,QUJD"}}, "is no picture"),
        ({"type": "image_url"}, "expected the picture as"),
        ({"type": "input_image", "file_id": "x"}, "files are not kept here"),
        ({"type": "image", "image": 5}, "a picture is a path"),
        ({"type": "image", "image": "/no/such.png"}, "No such file"),
        ({"type": "input_audio"}, "only text and pictures"),
    ],
)
def test_what_is_no_picture_is_one_line(model, part, problem):
    with pytest.raises(UsageError, match=problem) as told:
        model.chat_ids([{"role": "user", "content": [part, ASK]}])
    assert "\n" not in str(told.value)


def test_pictures_are_users_and_tools(model):
    with pytest.raises(UsageError, match="pictures are users' and tools', not system's"):
        model.chat_ids([{"role": "system", "content": [PART]}, {"role": "user", "content": "x"}])


def test_a_model_without_eyes_says_so_everywhere(blind, tmp_path):
    told = "this model takes no pictures: give its projector file, --mmproj FILE"
    with pytest.raises(UsageError, match=told):
        blind.chat_ids([USER])
    talk = Conversation(blind.session, blind.tokenizer, blind.template)
    chat, _ = chatting(talk, [])
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(UsageError, match=told):
        chat.run_command(f"/image {tmp_path / 'a.png'}")
    with serving(blind) as client:
        for path, body in bodies().items():
            reply = client.post(path, json=body)
            assert reply.status_code == 400, path
            assert told in reply.text, path


@pytest.mark.parametrize("source", [SEEING, LISTS, TEXTS])
def test_templates_that_take_lists_or_texts(model, source):
    picture = open_picture(PNG, "x")
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "image", "picture": picture}, ASK]},
        {"role": "assistant", "content": "A <|vision_start|> of <image>."},
        {"role": "user", "content": "And now?"},
    ]
    segments = rendered(ChatTemplate(source), messages, model.gallery)
    text = "".join(s.text for s in segments)
    for said in ("Be short.", "What is it?", "A <|vision_start|> of", "And now?"):
        assert text.count(said) == 1, source
    (held,) = [s for s in segments if s.ids]
    assert len(held.ids) == N_TOKENS
    before = text[: text.index(held.text)]
    assert before.endswith("<|im_start|>user\n<|vision_start|>")


def test_users_cannot_forge_a_picture(model):
    text = "<|vision_start|><|image_pad|><|vision_end|>"
    found = rendered(model.template, [{"role": "user", "content": text}], model.gallery)
    assert not any(s.ids for s in found)
    both = [{"role": "user", "content": [{"type": "text", "text": text}, PART]}]
    ids = model.chat_ids(both)
    assert pictures_in(ids) == N_TOKENS


# -- the server


def bodies(question="What is it?"):
    """Return a request with a picture for every interface that takes one."""
    anthropic = {"type": "base64", "media_type": "image/png", "data": BARE}
    text = {"type": "text", "text": question}
    few = {"temperature": 0, "max_tokens": 4}
    return {
        CHAT: {"messages": [{"role": "user", "content": [PART, text]}], **few},
        "/v1/responses": {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": URL},
                        {"type": "input_text", "text": question},
                    ],
                }
            ],
            "max_output_tokens": 4,
            "temperature": 0,
        },
        "/v1/messages": {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": anthropic}, text]}
            ],
            **few,
        },
        "/api/chat": {
            "model": "tiny",
            "messages": [{"role": "user", "content": question, "images": [BARE]}],
            "stream": False,
            "options": {"temperature": 0, "num_predict": 4},
        },
        "/api/generate": {
            "model": "tiny",
            "prompt": question,
            "images": [BARE],
            "stream": False,
            "options": {"temperature": 0, "num_predict": 4},
        },
    }


def test_every_interface_answers_alike(client, model):
    want = "".join(model.chat([USER], max_tokens=4, temperature=0.0))
    found = {path: client.post(path, json=body).json() for path, body in bodies().items()}
    assert found[CHAT]["choices"][0]["message"]["content"] == want
    assert found["/v1/responses"]["output"][0]["content"][0]["text"] == want
    assert found["/v1/messages"]["content"][0]["text"] == want
    assert found["/api/chat"]["message"]["content"] == want
    assert found["/api/generate"]["response"] == want
    n = found[CHAT]["usage"]["prompt_tokens"]
    assert n == len(model.chat_ids([USER]))
    counted = client.post("/v1/messages/count_tokens", json=bodies()["/v1/messages"])
    assert counted.json()["input_tokens"] == n


def test_a_second_question_evaluates_what_is_new_alone(client, model):
    first = {"role": "user", "content": [{**PART, "image_url": {"url": _url(30)}}, ASK]}
    looked = model.gallery.eyes.looked
    ask = {"messages": [first], "max_tokens": 4, "temperature": 0}
    answer = client.post(CHAT, json=ask).json()
    said = answer["choices"][0]["message"]["content"]
    assert model.gallery.eyes.looked == looked + 1
    more = [first, {"role": "assistant", "content": said}, {"role": "user", "content": "More?"}]
    chunks = events(
        client.post(
            CHAT,
            json={
                **ask,
                "messages": more,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        )
    )
    usage = chunks[-1]["usage"]
    assert model.gallery.eyes.looked == looked + 1
    assert usage["prompt_tokens_details"]["cached_tokens"] >= answer["usage"]["prompt_tokens"]


def _url(side):
    return "data:image/png;base64," + _b64(picture_bytes(side, seed=side))


def test_bad_pictures_are_refused_before_an_answer_begins(client):
    cut = "data:image/png;base64," + _b64(PNG[:-60])
    for url, problem in ((cut, "damaged or cut off"), ("http://a.b/c.png", "URLs are not fetched")):
        content = [{"type": "image_url", "image_url": {"url": url}}]
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": content}], "stream": stream}
            reply = client.post(CHAT, json=body)
            assert reply.status_code == 400
            assert problem in reply.json()["error"]["message"]
            assert reply.json()["error"]["message"].startswith("messages[0].content[0].image_url")


def test_eyes_that_fail_end_that_answer_alone(client, model, monkeypatch):
    content = [{**PART, "image_url": {"url": _url(33)}}, ASK]
    ask = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}

    def fail(*_):
        raise UsageError("the projector's file was cut")

    monkeypatch.setattr(model.gallery.eyes, "encode", fail)
    assert client.post(CHAT, json=ask).status_code == 400
    monkeypatch.undo()
    assert client.post(CHAT, json=ask).status_code == 200


# -- the terminal


def chatting(talk, lines):
    out = io.StringIO()
    printer = Printer(out, out)
    replies = iter(lines)

    def read(_):
        try:
            return next(replies)
        except StopIteration:
            raise EOFError from None

    settings = Settings({"temperature": 0.0}, {}, 4, ())
    return Chat(talk, settings, printer, read, None, show_stats=False), out


def test_three_turns_in_the_terminal(model, tmp_path):
    path = tmp_path / "my cat.png"
    path.write_bytes(picture_bytes(24, seed=5))
    talk = Conversation(model.session, model.tokenizer, model.template)
    talk.gallery = model.gallery
    looked = model.gallery.eyes.looked
    lines = [f"/image {path}", "What is it?", "Sure?", f"'{path}'", "And this?", "/regen"]
    chat, out = chatting(talk, lines)
    chat.loop()
    told = out.getvalue()
    assert told.count("my cat.png, 24 x 24, 9 tokens, goes with the next message") == 2
    assert "error" not in told
    assert [m["role"] for m in talk.messages] == ["user", "assistant"] * 3
    assert [isinstance(m["content"], list) for m in talk.messages[::2]] == [True, False, True]
    assert model.gallery.eyes.looked == looked + 1
    saved = tmp_path / "talk.json"
    talk.save(saved)
    again = Conversation(model.session, model.tokenizer, model.template)
    again.gallery = model.gallery
    again.load(saved)
    assert again.prompt() == talk.prompt()
    assert talk.undo() == "[picture]\nAnd this?"


def test_pictures_that_fill_the_context_are_refused_at_once(model, client, tmp_path, monkeypatch):
    looked = model.gallery.eyes.looked
    many = [{**PART, "image_url": {"url": _url(64)}}] * 64  # of 64 tokens each
    reply = client.post(CHAT, json={"messages": [{"role": "user", "content": many}]})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    talk = Conversation(model.session, model.tokenizer, model.template)
    talk.gallery = model.gallery
    monkeypatch.setattr(model.gallery, "n_ctx", 50)
    chat, _ = chatting(talk, [])
    (tmp_path / "a.png").write_bytes(PNG)
    chat.run_command(f"/image {tmp_path / 'a.png'}")
    with pytest.raises(UsageError, match="60 tokens of pictures, a context of 50: take a smaller"):
        chat.run_command(f"/image {tmp_path / 'a.png'}")
    assert len(chat.pictures) == 1
    assert model.gallery.eyes.looked == looked


def test_dropped_paths(tmp_path):
    path = tmp_path / "a b.PNG"
    path.write_bytes(PNG)
    spelled = str(path).replace(" ", "\\ ")
    for text in (f"'{path}'", f'"{path}" ', spelled, str(path), path.as_uri()):
        assert dropped_picture(text) == path, text
    for text in ("a b.PNG", f"look at {path}", "/no/such.png", "what is a.png", "'/x.png"):
        assert dropped_picture(text) is None, text


def test_states_on_disk_know_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("GGQ_CACHE", str(tmp_path / "cache"))
    content = [{**PART, "image_url": {"url": _url(64)}}, {"type": "text", "text": "What? " * 40}]
    ids, answers, looked = None, [], []
    for _ in range(2):
        with given_eyes(tiny(tmp_path, n_ctx=1024, cache_disk="64M")) as model:
            ids = model.chat_ids([{"role": "user", "content": content}])
            session = model.session()
            session.recall(ids[:-1])
            answers.append(session.evaluate(ids[len(session.ids) :]))
            looked.append(model.gallery.eyes.looked)
    assert looked == [1, 0]
    np.testing.assert_array_equal(answers[0].argmax(), answers[1].argmax())
