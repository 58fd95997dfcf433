"""``ggq serve`` as a process: it says where it listens, serves the page, ends on Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
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


def test_wrong_options_are_one_line(tmp_path, capsys):
    path = make_tiny_llama(tmp_path / "t.gguf", vocab="bpe")
    for given in (
        [str(tmp_path / "missing.gguf")],
        [str(path), "--api-key-file", str(tmp_path / "missing")],
        [str(path), "--api-key", ""],
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
