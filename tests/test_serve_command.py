"""``ggq serve`` as a process: it says where it listens, serves the page, ends on Ctrl-C."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from click.testing import CliRunner
from ggufmaker import make_tiny_llama

from ggq import cli
from ggq.commands.serve import command

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a signal")
def test_serve_listens_and_ends(tmp_path):
    path = make_tiny_llama(tmp_path / "t.gguf", vocab="bpe")
    given = [str(path), "--port", "0", "-t", "1", "--parallel", "2", "--alias", "mine", "-v"]
    server = subprocess.Popen(
        [sys.executable, "-m", "ggq", "serve", *given, "--api-key", "sk-secret"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        lines = [server.stderr.readline() for _ in range(2)]
        url = re.search(r"listening on (http://127\.0\.0\.1:\d+)\n", lines[1]).group(1)
        assert "2 answers of 256 tokens each" in lines[0]
        with urllib.request.urlopen(url) as reply:
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert b"<title>ggq</title>" in reply.read()
        request = urllib.request.Request(
            f"{url}/v1/models", headers={"authorization": "Bearer sk-secret"}
        )
        with urllib.request.urlopen(request) as reply:
            assert b'"id":"mine"' in reply.read()
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=30)
    assert server.returncode == 130
    assert "GET /v1/models 200" in err
    assert "sk-secret" not in err
    assert "Traceback" not in err


@contextlib.contextmanager
def served(*given):
    """Yield a server's process and its address."""
    command = [sys.executable, "-m", "ggq", "serve", *given, "--port", "0", "-t", "1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = server.stderr.readline()
        while "listening on" not in line:
            assert line, "it ended"
            line = server.stderr.readline()
        yield server, line.split()[-1]
    finally:
        server.kill()
        server.communicate(timeout=30)


def opened(url, **body):
    """Return the reply to a request for a long stream."""
    more = {"stream": True, "ignore_eos": True, "messages": [{"role": "user", "content": "hi"}]}
    data = json.dumps({**more, **body}).encode()
    return urllib.request.urlopen(urllib.request.Request(url, data), timeout=30)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_sigterm_ends_streams_with_an_error(path, tmp_path):
    file = make_tiny_llama(tmp_path / "t.gguf", vocab="bpe", n_ctx=1 << 17)
    with served(str(file), "-c", "100000") as (server, url):
        with opened(url + path, model="t", options={"temperature": 0}) as reply:
            reply.readline()
            started = time.monotonic()
            server.send_signal(signal.SIGTERM)
            rest = reply.read()
            server.wait(timeout=30)
        assert b"the server is shutting down" in rest[-400:]
        assert time.monotonic() - started < 5  # a second on a machine that does nothing else
        assert server.returncode == -signal.SIGTERM


def test_many_models_ps_and_stop(tmp_path, capsys):
    make_tiny_llama(tmp_path / "one.gguf", vocab="bpe")
    make_tiny_llama(tmp_path / "two.gguf", vocab="bpe")
    with served("--models-dir", str(tmp_path), "--keep-alive", "1h") as (_, url):
        assert cli.main(["ps", "--server", url]) == 0
        assert "no model is loaded" in capsys.readouterr().err
        opened(url + "/v1/chat/completions", model="two", max_tokens=2).close()
        assert cli.main(["ps", "--server", url]) == 0
        out = capsys.readouterr().out
        assert out.startswith("two ") and "256 tokens  60 minutes" in out
        assert cli.main(["stop", "nothing", "--server", url]) == 1
        assert "nothing does not exist" in capsys.readouterr().err
        assert cli.main(["stop", "two", "--server", url]) == 0
        end = time.monotonic() + 20
        while cli.main(["ps", "--server", url, "--json"]) == 0 and time.monotonic() < end:
            if capsys.readouterr().out == "[]\n":
                break
        else:
            raise AssertionError("it is not unloaded")
    assert cli.main(["ps", "--server", url]) == 1
    assert "does ggq serve run there?" in capsys.readouterr().err


def test_wrong_options_are_one_line(tmp_path, capsys):
    path = make_tiny_llama(tmp_path / "t.gguf", vocab="bpe")
    for given in (
        [str(tmp_path / "missing.gguf")],
        [str(path), "--api-key-file", str(tmp_path / "missing")],
        [str(path), "--api-key", ""],
        [str(path), "--memory", "1G"],
        ["--models-dir", str(tmp_path / "missing")],
        ["--keep-alive", "soon"],
        [str(path), "--top-p", "7"],
        ["--memory", "much"],
        ["--alias", "mine"],
        ["--draft", str(path)],
    ):
        assert cli.main(["serve", *given]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_help_is_in_the_documentation():
    help_text = (
        CliRunner()
        .invoke(
            command, ["--help"], prog_name="ggq serve", terminal_width=100, max_content_width=100
        )
        .output
    )
    shown = (ROOT / "docs/serve.md").read_text("utf-8")
    wanted = [line for line in help_text.splitlines() if line.strip().startswith("-")]
    assert len(wanted) > 10
    missing = [line for line in wanted if line.split("  ")[1].strip() not in shown]
    assert missing == []
