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
ETAG = hashlib.sha256(CONTENT).hexdigest()  # as the hub's of large files

PULLS = """
import sys
from ggq import cli
for name in sys.argv[1:]:
    print(cli.main(["pull", name]), file=sys.stderr)
"""


class Handler(HubHandler):
    """What huggingface_hub asks of the hub: a model's files, and a file in ranges.

    Large files lie elsewhere, as the hub's do: it redirects to another host.
    """

    def do_GET(self):
        state = self.server.state
        asked = self.headers.get("range", "")
        path = self.path.partition("?")[0]
        state.seen.append((self.command, path, asked))
        if not path.startswith("/elsewhere/"):
            state.tokens.add(self.headers.get("authorization"))
        elif "authorization" in self.headers:
            state.leaked.append(path)
        if path in state.failing:
            status, headers = state.failing[path]
            self.answer(status, b"", headers)
        elif path.startswith("/api/models/org/"):
            lfs = {"sha256": ETAG, "size": len(CONTENT), "pointerSize": 130}
            file = {"rfilename": NAME, "size": len(CONTENT), "blobId": "b" * 40, "lfs": lfs}
            about = {
                "id": path[len("/api/models/") :],
                "sha": COMMIT,
                "siblings": [file],
                "tags": ["license:mit"],
            }
            self.answer(200, json.dumps(about).encode(), {"content-type": "application/json"})
        elif path.startswith("/org/") and path.endswith(f"/resolve/{COMMIT}/{NAME}"):
            about = {"x-linked-etag": f'"{ETAG}"', "x-linked-size": str(len(CONTENT))}
            place = f"http://localhost:{self.server.server_port}/elsewhere/{NAME}"
            self.answer(302, b"", {**about, "x-repo-commit": COMMIT, "location": place})
        elif path == f"/elsewhere/{NAME}":
            start = int(re.match(r"bytes=(\d+)-", asked).group(1)) if asked else 0
            size = len(CONTENT)
            about = {"content-range": f"bytes {start}-{size - 1}/{size}"} if asked else {}
            self.answer(206 if asked else 200, state.content[start:], about)
        else:
            self.answer(404, b"", {"x-error-code": "RepoNotFound"})

    def send_body(self, body, headers):
        state = self.server.state
        if not self.path.startswith("/elsewhere/") or not state.cuts:
            self.wfile.write(body)
            return
        self.wfile.write(body[: state.cuts.pop(0)])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)  # the line breaks


@pytest.fixture
def fake_hub(tmp_path):
    state = SimpleNamespace(content=CONTENT, cuts=[], seen=[], tokens=set(), leaked=[], failing={})
    with serving(Handler, state, tmp_path / "hf") as hub:
        env = hub | {"HF_TOKEN": "hf_secret", "GGQ_CACHE": str(tmp_path / "ggq")}

        def pull(*arguments, program=("-m", "ggq"), **more):
            return subprocess.run(
                [sys.executable, *program, *(arguments or ["pull", "org/M:Q4_K_M"])],
                env={**env, **more},
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
                stdin=subprocess.DEVNULL,
            )

        yield state, pull


def downloads(state):
    return [asked for command, path, asked in state.seen if path == f"/elsewhere/{NAME}"]


def test_a_broken_download_goes_on_where_it_was(fake_hub):
    state, pull = fake_hub
    state.cuts = [12_000_000] + [0] * 40  # then the line stays broken
    broken = pull("org/M:Q4_K_M", program=["-c", "import time\ntime.sleep = id\n" + PULLS])
    *_, said, code = broken.stderr.splitlines()
    assert said.startswith("ggq: error: org/M: offline? 127.0.0.1:")
    assert (said.endswith("what was fetched is kept"), code) == (True, "1")
    assert downloads(state)[0] == ""
    state.cuts.clear()
    state.seen.clear()
    done = pull()
    assert done.returncode == 0, done.stderr
    with open(done.stdout.strip(), "rb") as file:
        assert file.read() == CONTENT
    assert [int(r[6:].split("-")[0]) >= 10_000_000 for r in downloads(state)] == [True]
    assert state.tokens == {"Bearer hf_secret"}
    assert state.leaked == []
    assert "hf_secret" not in done.stdout + done.stderr + broken.stderr
    state.seen.clear()
    again = pull(HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout
    assert state.seen == []


def test_a_line_that_breaks_while_much_came_is_taken_up_at_once(fake_hub):
    state, pull = fake_hub
    state.cuts = [11_000_000, 10_500_000]
    done = pull()
    assert (done.returncode, len(downloads(state))) == (0, 3), done.stderr


def test_a_file_that_is_not_what_the_hub_says_is_refused(fake_hub):
    state, pull = fake_hub
    state.content = CONTENT[:-1] + b"!"
    done = pull()
    assert done.returncode == 1
    assert "SHA-256 differs" in done.stderr
    assert done.stdout == ""
    state.content = CONTENT
    assert pull().returncode == 0  # nothing of the wrong file is left


GATED, MISSING = {"x-error-code": "GatedRepo"}, {"x-error-code": "EntryNotFound"}
REFUSALS = [  # of the list of files or of the file: status, headers, what is said
    ("file", 401, GATED, "accept its terms at http://127.0.0.1:"),
    ("file", 403, GATED, "log in (hf auth login, or HF_TOKEN)"),
    ("list", 401, {}, "the hub has no such repository, or it is private"),
    ("list", 404, {"x-error-code": "RepoNotFound"}, "the hub has no such repository"),
    ("file", 404, MISSING, "the hub lists a file that it does not have"),
    ("list", 429, {"retry-after": "7"}, "asks to wait: too many requests (429), try again in 7 s"),
    ("list", 500, {}, " answers 500: "),
]


def test_what_the_hub_refuses_is_one_line(fake_hub, tmp_path):
    state, pull = fake_hub
    for i, (what, status, headers, _) in enumerate(REFUSALS):
        file = f"/org/r{i}/resolve/{COMMIT}/{NAME}"
        state.failing[file if what == "file" else f"/api/models/org/r{i}"] = status, headers
    names = [f"org/r{i}" for i in range(len(REFUSALS))]
    done = pull(*names, program=["-c", PULLS])
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(REFUSALS)
    for name, said, code, (*_, message) in zip(
        names, lines[::2], lines[1::2], REFUSALS, strict=True
    ):
        assert (said.startswith(f"ggq: error: {name}: "), code) == (True, "1")
        assert message in said


@pytest.mark.parametrize("command", [["run", "org/M", "Hi"], ["serve", "hf://org/M:q4_k_m"]])
def test_a_name_is_fetched_where_a_model_is_opened(fake_hub, command):
    state, pull = fake_hub
    done = pull(*command)  # what comes is no model: it has been fetched by then
    assert (done.returncode, len(downloads(state))) == (1, 1), done.stderr
    first, *_, last = done.stderr.splitlines()
    assert first == f"not on this machine yet: org/M: {NAME}, licence mit"
    assert last.startswith("ggq: error: ") and "header: GGUF version" in last


def test_python_fetches_a_name(monkeypatch, tmp_path):
    import ggq
    from ggq.errors import GGQError

    seen = []
    monkeypatch.setattr("ggq.hub.obtain", lambda name, **_: seen.append(name) or tmp_path / "no")
    with pytest.raises(GGQError, match="no"):
        ggq.load("org/M:Q4_K_M")
    with pytest.raises(GGQError, match="missing/model"):
        ggq.load("missing/model.gguf")
    assert seen == ["org/M:Q4_K_M"]


def test_no_network_is_told_as_such(fake_hub):
    state, pull = fake_hub
    done = pull(HF_ENDPOINT="http://hub.invalid")
    said = "offline: hub.invalid cannot be found, and org/M:Q4_K_M is not on this machine"
    assert done.stderr == f"ggq: error: {said}\n"
    assert state.seen == []


def test_offline_without_the_file_says_so(fake_hub):
    state, pull = fake_hub
    done = pull(HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "offline: HF_HUB_OFFLINE is set, and org/M:Q4_K_M is not on this mach" in done.stderr
    assert state.seen == []
