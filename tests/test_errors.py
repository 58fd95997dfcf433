"""What errors say: the system's words without numbers, names that are near, one line each."""

import errno
import os
import urllib.error

import pytest
from ggufmaker import make_tiny_llama

import ggq
from ggq.cli import main
from ggq.errors import known_names, reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/b"), "No such file"),
        (OSError("no network\nmore"), "no network"),
        (ValueError(), "ValueError"),
        (ValueError("\x1b[31m"), "\\x1b[31m"),
        (urllib.error.URLError(OSError(errno.ECONNREFUSED, "refused")).reason, "refused"),
        ("words", "words"),
    ],
)
def test_reasons_are_words(error, words):
    assert reason(error) == words


def test_names_that_are_near_or_all_of_them():
    assert known_names("Q4KM", ["Q8_0", "Q4_K_M"]) == "did you mean Q4_K_M?"
    assert known_names("NOPE", ["Q8_0", "Q4_K_M"]) == "one of Q8_0, Q4_K_M"


def test_options_are_named_as_the_user_gives_them(tmp_path, capsys):
    path, out = make_tiny_llama(tmp_path / "t.gguf"), tmp_path / "o.gguf"
    out.write_text("precious")
    for _ in range(2):  # the one does not change how the other speaks
        assert main(["convert", str(path), str(out), "-t", "Q8_0"]) == 1
        assert "exists; --force overwrites it" in capsys.readouterr().err
        with pytest.raises(ggq.GGQError, match="exists; force=True overwrites it"):
            ggq.convert(path, out, type="Q8_0")
    assert out.read_text() == "precious"
    with (
        ggq.load(path, n_ctx=4, threads=1) as model,
        pytest.raises(ggq.GGQError, match=r"\(n_ctx\)"),
    ):
        list(model.generate(range(5)))
    assert main(["run", str(path), "-c", "4", "--raw", "a long text, too long"]) == 1
    assert "(--ctx)" in capsys.readouterr().err


def _commands(folder):
    """Yield command lines with a folder where a file is expected, or a server that is not there."""
    model = make_tiny_llama(folder / "t.gguf", vocab="bpe")
    yield ["serve", model, "--api-key-file", folder]
    yield ["set-metadata", model, "--force", "--set", f"general.name=@{folder}"]
    yield ["chat", "-p", "x", "--server", "http://127.0.0.1:9"]


@pytest.mark.parametrize("number", range(3))
def test_commands_tell_reasons_without_numbers(number, tmp_path, capsys):
    words = list(_commands(tmp_path))[number]
    assert main([os.fspath(word) for word in words]) == 1
    told = capsys.readouterr().err
    assert told.startswith("ggq: error: ") and told.count("\n") == 1
    assert "Errno" not in told and told.strip().endswith(("directory", "run there?"))
