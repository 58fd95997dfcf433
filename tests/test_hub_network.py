"""``ggq pull org/repo`` against a hub on this machine: resumed, verified, with a token, offline."""

import hashlib
import json
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from local_hub import HubHandler, serving

pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")

pytestmark = pytest.mark.slow

NAME, COMMIT = "M-Q4_K_M.gguf", "a" * 40
CONTENT = b"GGUF" + bytes(range(256)) * 100_000  # huggingface_hub keeps what it has per 10 MB


class Handler(HubHandler):
    """What huggingface_hub asks of the hub: a model's files, and a file in ranges."""

    def do_GET(self):
        state = self.server.state
        asked = self.headers.get("range", "")
        state.seen.append((self.command, self.path.partition("?")[0], asked))
        state.tokens.add(self.headers.get("authorization"))
        if self.path.startswith("/api/models/org/M"):
            digest = hashlib.sha256(CONTENT).hexdigest()
            lfs = {"sha256": digest, "size": len(CONTENT), "pointerSize": 130}
            file = {"rfilename": NAME, "size": len(CONTENT), "blobId": "b" * 40, "lfs": lfs}
            body = json.dumps({"id": "org/M", "sha": COMMIT, "siblings": [file]}).encode()
            self.answer(200, body, {"content-type": "application/json"})
        elif self.path == f"/org/M/resolve/{COMMIT}/{NAME}":
            start = int(re.match(r"bytes=(\d+)-", asked).group(1)) if asked else 0
            about = {"etag": '"' + "e" * 64 + '"', "x-repo-commit": COMMIT}
            if asked:
                size = len(CONTENT)
                about["content-range"] = f"bytes {start}-{size - 1}/{size}"
            self.answer(206 if asked else 200, state.content[start:], about)
        else:
            self.answer(404, b"", {"x-error-code": "RepoNotFound"})

    def send_body(self, body, headers):
        state = self.server.state
        if "etag" not in headers or not state.cuts:
            self.wfile.write(body)
            return
        self.wfile.write(body[: state.cuts.pop(0)])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)  # the line breaks


@pytest.fixture
def fake_hub(tmp_path):
    state = SimpleNamespace(content=CONTENT, cuts=[], seen=[], tokens=set())

    with serving(Handler, state, tmp_path / "hf") as hub:
        env = hub | {"HF_TOKEN": "hf_secret", "GGQ_CACHE": str(tmp_path / "ggq")}

        def pull(**more):
            return subprocess.run(
                [sys.executable, "-m", "ggq", "pull", "org/M:Q4_K_M"],
                env={**env, **more},
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
            )

        yield state, pull


def downloads(state):
    return [asked for command, path, asked in state.seen if command == "GET" and NAME in path]


def test_a_broken_download_goes_on_where_it_was(fake_hub):
    state, pull = fake_hub
    state.cuts = [12_000_000] + [0] * 20  # then the line stays broken
    broken = pull()
    assert broken.returncode == 1
    assert broken.stderr.splitlines()[-1].startswith("ggq: error: org/M: ")
    assert downloads(state)[0] == ""
    state.cuts.clear()
    state.seen.clear()
    done = pull()
    assert done.returncode == 0, done.stderr
    with open(done.stdout.strip(), "rb") as file:
        assert file.read() == CONTENT
    assert [int(r[6:].split("-")[0]) >= 10_000_000 for r in downloads(state)] == [True]
    assert state.tokens == {"Bearer hf_secret"}
    assert "hf_secret" not in done.stdout + done.stderr + broken.stderr
    state.seen.clear()
    again = pull(HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout
    assert state.seen == []


def test_a_file_that_is_not_what_the_hub_says_is_refused(fake_hub):
    state, pull = fake_hub
    state.content = CONTENT[:-1] + b"!"
    done = pull()
    assert done.returncode == 1
    assert "SHA-256 differs" in done.stderr
    assert done.stdout == ""
    state.content = CONTENT
    assert pull().returncode == 0  # nothing of the wrong file is left


def test_a_token_goes_to_the_hub_only(monkeypatch):
    from ggq import hf_hub

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
    assert hf_hub._same_host("https://huggingface.co/org/M/resolve/main/x")
    for other in ("https://cdn.example/x", "http://huggingface.co/x", "https://huggingface.co.x/"):
        assert not hf_hub._same_host(other)


def test_offline_without_the_file_says_so(fake_hub):
    state, pull = fake_hub
    done = pull(HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "is not in the cache" in done.stderr
    assert state.seen == []
