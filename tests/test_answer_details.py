"""What Python is told of an answer besides its text: why it ended, what it took; a model's repr."""

import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq import machine_code, progress

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


def test_the_name_of_a_file_is_not_scored_as_a_text(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ggq.GGQError, match=r"wiki\.txt: no such file, and no text"):
        ggq.evaluate(model, "wiki.txt", n_ctx=16)
    (tmp_path / "wiki.txt").write_text("the " * 100)
    with pytest.raises(ggq.GGQError, match=r"wiki\.txt is a file: give pathlib\.Path"):
        ggq.evaluate(model, "wiki.txt", n_ctx=16)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "user"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "image"),
        ({"role": "user", "content": [{"text": "x"}]}, "type"),
    ],
)
def test_content_that_no_template_can_read_is_one_clear_line(model, message, told):
    with pytest.raises(ggq.GGQError, match=rf"messages\[0\].*{told}") as refused:
        model.chat([message])
    assert "\n" not in str(refused.value)


def test_parts_of_text_are_joined_as_the_server_joins_them(model):
    parts = [{"type": "text", "text": "the"}, {"type": "text", "text": "end"}]
    for given, text in ((parts[:1], "the"), (parts, "the\nend")):
        ids = model.chat_ids([{"role": "user", "content": given}])
        assert ids == model.chat_ids([{"role": "user", "content": text}])


def test_compiling_is_told_without_the_command_line_too(model, monkeypatch, capsys):
    monkeypatch.setattr(machine_code, "_listener", None)
    with ggq.load(model.gguf.path, n_ctx=64, threads=1) as fresh:
        assert fresh.engine is not None
    machine_code._listener(0, 2)
    assert capsys.readouterr().err.endswith("compiling kernels for this processor, once ...\n")
    mine = []
    machine_code.set_listener(lambda done, total: mine.append(done))
    machine_code.set_default_listener(progress.show_compiling)
    machine_code._listener(1, 2)
    assert mine == [1]
