"""A model's name does wherever a file does: short names, and those of the Hugging Face cache."""

import hashlib
import json

import pytest
from ggufmaker import make_tiny_llama

from ggq import cli, hub
from ggq.runtime import model as model_module


@pytest.fixture(params=["tiny", "org/repo:F32", "hf://org/repo"])
def name(request, tmp_path, monkeypatch):
    """A name under which a tiny llama is stored."""
    monkeypatch.setenv("GGQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "hf" / "models--org--repo" / "snapshots" / "abc"
    for place in (folder, hub.models_dir()):
        place.mkdir(parents=True)
    file = make_tiny_llama(folder / "Tiny-F32.gguf")
    data = (folder / "Tiny-F32.gguf").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    known = hub.Known("tiny==1", "pack/Tiny.gguf", len(data), digest, "", "")
    monkeypatch.setattr(hub, "KNOWN", {"tiny": known})
    known.path.write_bytes(data)
    assert file is None or file
    return request.param


def test_commands_take_names(name, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a b c d e f g h " * 20)
    for arguments, shown in (
        (["info", name, "--json"], '"metadata"'),
        (["tokenize", name, "ab", "--ids"], " "),
        (["verify", name], "ok ("),
        (["hash", name, "--no-layer"], "sha256"),
        (["export", name, str(tmp_path / "out"), "-q"], "out"),
        (["eval", name, "--text", str(text), "-c", "8", "--chunks", "2", "--json"], "comparison"),
        (["bench", name, "-p", "0", "-n", "1", "-r", "1", "-o", "json"], "avg_ts"),
        (["run", name, "--raw", "-n", "1", "hello"], "\n"),
    ):
        code = cli.main(arguments)
        captured = capsys.readouterr()
        assert (code, shown in captured.out) == (0, True), (arguments, captured)
    assert (tmp_path / "out" / "config.json").exists()


def test_names_that_list_shows_are_names(name, capsys):
    assert cli.main(["list", "--json"]) == 0
    listed = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert listed == ["tiny", "org/repo:F32"]
    assert {hub.resolve_model(n).name for n in listed} == {"Tiny.gguf", "Tiny-F32.gguf"}


@pytest.mark.parametrize("command", ["info", "verify", "hash", "eval", "bench", "chat", "serve"])
def test_a_name_that_is_not_here_says_how_to_get_it(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GGQ_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(model_module, "load", None)  # nothing gets that far
    more = {"eval": ["--text", __file__], "chat": ["-p", "Hi"]}.get(command, [])
    assert cli.main([command, "org/other:Q4_0", *more]) == 1
    captured = capsys.readouterr()
    told = {
        "ggq: error: org/other:Q4_0 is not here yet: fetch it with `ggq pull org/other:Q4_0`\n",
        "ggq: error: offline: HF_HUB_OFFLINE is set, and org/other:Q4_0 is not on this machine\n",
    }
    assert captured.err in told
