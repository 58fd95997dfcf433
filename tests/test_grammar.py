"""Grammars and JSON schemas from Python and the command line: the same room as the server's."""

import json

import pytest

pytest.importorskip("llguidance")

from ggufmaker import bpe_vocab, make_tiny_llama

import ggq
from ggq.cli import main
from ggq.errors import UsageError

CHOICE = 'root ::= "yes" | "no"'
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
HI = [{"role": "user", "content": "hello"}]
THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}<think>\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grammar")
    return make_tiny_llama(folder / "t.gguf", n_ctx=512, n_layer=1, vocab=bpe_vocab())


@pytest.fixture(scope="module")
def model(path):
    with ggq.load(path, threads=1) as model:
        yield model


@pytest.mark.parametrize("seed", range(3))
def test_texts_fit(model, seed):
    """A random model never says yes or no, nor JSON, by itself."""
    chosen = {"max_tokens": 64, "seed": seed}
    assert "".join(model.generate("hello", grammar=CHOICE, **chosen)) in ("yes", "no")
    assert "".join(model.chat(HI, grammar=CHOICE, **chosen)) in ("yes", "no")
    found = json.loads("".join(model.chat(HI, response_format=FORM, **chosen)))
    assert found in ({"ok": True}, {"ok": False})


def test_details(model):
    *_, last = model.chat(HI, response_format=FORM, details=True, max_tokens=64)
    assert last.finish_reason == "stop"
    assert last.usage.completion_tokens > 2
    *_, last = model.generate("hello", grammar='root ::= "zxqvzxqv"', details=True, max_tokens=3)
    assert (last.finish_reason, last.usage.completion_tokens) == ("length", 3)


def test_thoughts_are_free(tmp_path):
    """Where the prompt has opened thoughts, nothing is asked of them; the end waits for them."""
    keys = bpe_vocab()
    keys["tokenizer.chat_template"] = THINKS
    thinking = make_tiny_llama(tmp_path / "t.gguf", n_ctx=512, n_layer=1, vocab=keys)
    with ggq.load(thinking, threads=1) as model:
        text = "".join(model.chat(HI, grammar=CHOICE, max_tokens=20, seed=1))
        assert text not in ("yes", "no")
        assert text == "".join(model.chat(HI, max_tokens=20, seed=1, logit_bias=ends(model)))


def ends(model):
    return dict.fromkeys(model.tokenizer.eog_ids, -1e9)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"grammar": "root ::= ("}, "grammar: "),
        ({"grammar": ""}, "grammar: expected the text"),
        ({"grammar": 3}, "grammar: expected the text"),
        ({"grammar": CHOICE, "response_format": FORM}, "give one"),
        ({"response_format": "json"}, "response_format: expected"),
        ({"response_format": {"type": "yaml"}}, "response_format.type: expected text"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object", "schema": {"type": "x"}}}, "response_format"),
    ],
)
def test_wrong_ones_are_told_at_the_call(model, asked, told):
    for call in (lambda: model.chat(HI, **asked), lambda: model.generate("hello", **asked)):
        with pytest.raises(UsageError) as error:
            call()
        assert told in str(error.value)
        assert "\n" not in str(error.value)


def ran(capfd, *words):
    code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out.strip(), err


@pytest.fixture
def no_pipe(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)


def test_command_line(path, tmp_path, capfd, no_pipe):
    (tmp_path / "g.gbnf").write_text(CHOICE)
    (tmp_path / "s.json").write_text(json.dumps(SCHEMA))
    for flags in (("--grammar", CHOICE), ("--grammar-file", tmp_path / "g.gbnf")):
        code, out, _ = ran(capfd, "run", path, "hello", *flags)
        assert (code, out in ("yes", "no")) == (0, True)
        code, out, _ = ran(capfd, "chat", path, "-p", "hello", "--raw", *flags)
        assert (code, out in ("hellyes", "yes", "no")) == (0, True)
    for flags in (("-j", json.dumps(SCHEMA)), ("-jf", tmp_path / "s.json")):
        code, out, _ = ran(capfd, "run", path, "hello", *flags)
        assert code == 0
        assert set(json.loads(out)) == {"ok"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--grammar", "x ::= ", "-j", "{}"), "--grammar and --json-schema: give one of them"),
        (("--grammar", "root ::= ("), "--grammar: "),
        (("--grammar", __file__), "--grammar-file"),
        (("--grammar-file", "nowhere.gbnf"), "nowhere.gbnf: No such file"),
        (("-j", "{"), "--json-schema: is no JSON"),
        (("-j", __file__), "--json-schema-file"),
        (("-j", '{"type": "x"}'), "--json-schema: "),
        (("-j", "3"), "--json-schema: expected a JSON schema"),
        (("-jf", "nowhere.json"), "nowhere.json: No such file"),
    ],
)
def test_mistakes(path, flags, told, capfd, no_pipe):
    code, out, err = ran(capfd, "run", path, "hello", *flags)
    assert (code == 0, out) == (False, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
