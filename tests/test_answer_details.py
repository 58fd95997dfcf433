"""What Python is told of an answer besides its text: why it ended, what it took; a model's repr."""

import pytest
from ggufmaker import make_tiny_llama

import ggq

MESSAGES = [{"role": "user", "content": "the"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_tiny_llama(tmp_path_factory.mktemp("tiny") / "t.gguf", vocab="bpe")
    with ggq.load(path, n_ctx=64, threads=1) as model:
        yield model


def test_details_have_the_same_text_an_end_and_a_usage(model):
    asked = {"max_tokens": 6, "seed": 3}
    text = "".join(model.generate("the", **asked))
    found = list(model.generate("the", details=True, **asked))
    assert "".join(map(str, found)) == text
    assert [one.finish_reason for one in found[:-1]] == [None] * (len(found) - 1)
    last = found[-1]
    ids = [one.token_id for one in found if one.token_id is not None]
    assert last.finish_reason == ("length" if len(ids) == 6 else "stop")
    assert last.usage.prompt_tokens == len(model.tokenize("the"))
    assert last.usage.completion_tokens in (len(ids), len(ids) + 1)  # the end of a turn counts
    assert last.usage.prompt_seconds > 0 and last.usage.seconds > 0


def test_a_stop_text_is_told(model):
    text = "".join(model.generate("the", max_tokens=20, seed=3))
    mark = text[3:5]
    *_, last = model.generate("the", max_tokens=20, seed=3, stop=[mark], details=True)
    assert (last.finish_reason, last.stop) == ("stop", mark)


def test_a_conversation_has_details_too(model):
    *_, last = model.chat(MESSAGES, max_tokens=2, temperature=0, details=True)
    assert last.usage.prompt_tokens == len(model.chat_ids(MESSAGES))


def test_a_model_says_what_it_is(model):
    told = repr(model)
    assert told.startswith("<ggq.Model ") and "t.gguf: llama, 2 layers, context 64 of" in told
    with ggq.load(model.gguf.path, vocab_only=True) as words:
        assert repr(words).endswith("t.gguf: llama, vocabulary only>")
