"""A repository id as a source, against a hub on this machine: dry runs fetch no weights."""

import hashlib
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hfmaker import make_hf
from local_hub import HubHandler, serving

from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.provenance import read_provenance
from ggq.errors import UsageError
from ggq.gguf import open_gguf

pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")

pytestmark = pytest.mark.slow

COMMIT = "c" * 40


class Handler(HubHandler):
    """What huggingface_hub asks of the hub: what a repository has, and its files in ranges."""

    def do_GET(self):
        state = self.server.state
        path = self.path.partition("?")[0]
        file = re.fullmatch(r"/org/Tiny-1B/resolve/[^/]+/(.+)", path)
        if path.startswith("/api/models/org/Tiny-1B"):
            files = list(state.folder.iterdir())
            facts = {"id": "org/Tiny-1B", "sha": COMMIT}
            facts["siblings"] = [{"rfilename": p.name} for p in files]
            if "/tree/" in path:
                entry = {"type": "file", "oid": "d" * 40}
                facts = [{**entry, "path": p.name, "size": p.stat().st_size} for p in files]
            self.answer(200, json.dumps(facts).encode(), {"content-type": "application/json"})
        elif file and (state.folder / file[1]).is_file():
            body = (state.folder / file[1]).read_bytes()
            about = {"etag": f'"{hashlib.sha1(body).hexdigest()}"', "x-repo-commit": COMMIT}
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            if asked:
                body = body[int(asked[1]) : int(asked[2]) + 1]
            if self.command == "GET":
                state.sent[file[1]] = state.sent.get(file[1], 0) + len(body)
            self.answer(206 if asked else 200, body, about)
        else:
            self.answer(404, b"", {"x-error-code": "EntryNotFound"})


@pytest.fixture(params=[1, 2], ids=["one file", "shards"])
def hub(request, tmp_path):
    """Yield what was sent, and a function that runs ggq with this hub."""
    folder = make_hf(tmp_path / "repo", shards=request.param, hidden_size=512)
    (folder / "consolidated.safetensors").write_bytes(b"a copy for other programs")
    state = SimpleNamespace(folder=folder, sent={})

    with serving(Handler, state, tmp_path / "hf") as env:

        def run(*args, **more):
            return subprocess.run(
                [sys.executable, "-m", "ggq", *args],
                env={**env, **more},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
            )

        yield state, run


def test_a_dry_run_plans_what_the_conversion_writes_without_the_weights(hub):
    state, run = hub
    arguments = ["convert", "org/Tiny-1B", "--type", "Q4_K_M", "--json"]
    planned = run(*arguments, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    weights = [p.name for p in state.folder.glob("model*.safetensors")]
    size = sum((state.folder / name).stat().st_size for name in weights)
    assert 0 < sum(state.sent.get(name, 0) for name in weights) <= 100_001 * len(weights) < size
    made = run(*arguments)
    assert made.returncode == 0, made.stderr
    want, found = json.loads(planned.stdout), json.loads(made.stdout)
    assert found["shards"] == want["shards"] and found["tensors"] == want["tensors"]
    assert want["shards"][0]["path"].startswith("Tiny-")
    assert state.sent.get("consolidated.safetensors") is None


def test_check_and_offline_are_one_line(hub):
    state, run = hub
    missing = run("check", "org/other")
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1
    unreachable = {"HF_ENDPOINT": "http://no-such-host.invalid"}
    for more in (unreachable, {"HF_HUB_OFFLINE": "1"}):
        alone = run("check", "org/Tiny-1B", **more)
        assert alone.stderr == (
            "ggq: error: org/Tiny-1B: is not in the cache, "
            "and the hub is out of reach or HF_HUB_OFFLINE is set\n"
        )
    assert run("check", "org/Tiny-1B").stdout.startswith("llama: supported")
    assert run("check", "org/Tiny-1B", **unreachable).stdout.startswith("llama: supported")
    assert set(state.sent) == {"config.json"}


def test_a_file_is_proved_against_its_repository(hub, tmp_path):
    _, run = hub
    made = run("convert", "org/Tiny-1B", "m.gguf", "--type", "Q8_0", "--provenance")
    assert made.returncode == 0, made.stderr
    with open_gguf(tmp_path / "m.gguf") as file:
        assert read_provenance(file)["revision"] == COMMIT
    proved = run("verify", "m.gguf", "--source", "org/Tiny-1B")
    assert proved.returncode == 0 and "are what org/Tiny-1B gives" in proved.stdout, proved.stderr


def test_an_outline_is_never_written(tmp_path):
    folder = make_hf(tmp_path / "hf")
    with pytest.raises(UsageError, match="outline"):
        convert(folder, tmp_path / "o.gguf", options=Options(outline=True))
    assert not (tmp_path / "o.gguf").exists()


def only(folder, *names):
    """Leave these files and those of the tokenizer in the repository."""
    for path in folder.iterdir():
        if path.name not in names and not path.name.startswith("tokenizer"):
            path.unlink()


def test_repositories_of_other_forms_are_fetched(tmp_path):
    torch = pytest.importorskip("torch")
    from quantmaker import read_all
    from test_mistral_form import SIZES, make_own

    usual = make_hf(tmp_path / "usual", **SIZES)
    repo = make_own(tmp_path / "repo", usual)
    state = SimpleNamespace(folder=repo, sent={})
    made = {}
    with serving(Handler, state, tmp_path / "hf") as env:

        def run(*args):
            return subprocess.run(
                [sys.executable, "-m", "ggq", *args],
                env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
            )  # fmt: skip

        assert run("check", "org/Tiny-1B").stdout.startswith("llama: supported")
        made["own"] = run("convert", "org/Tiny-1B", "own.gguf", "--type", "F16")
    only(repo, "")
    torch.save({n: torch.from_numpy(x) for n, (_, x) in read_all(usual).items()}, repo / "x.bin")
    (repo / "x.bin").rename(repo / "pytorch_model.bin")
    (repo / "config.json").write_bytes((usual / "config.json").read_bytes())
    with serving(Handler, state, tmp_path / "hf2") as env:
        made["torch"] = run("convert", "org/Tiny-1B", "torch.gguf", "--type", "F16")
        dry = run("convert", "org/Tiny-1B", "--dry-run")
        assert "torch's, whose sizes are known only when they are here" in dry.stderr
    for name, done in made.items():
        assert done.returncode == 0, (name, done.stderr)
    with open_gguf(tmp_path / "own.gguf") as a, open_gguf(tmp_path / "torch.gguf") as b:
        assert all(bytes(a.data(n)) == bytes(b.data(n)) for n in b.tensors)
