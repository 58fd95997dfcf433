"""Every command that reports can print its report as JSON; -m names a model everywhere."""

import json

import pytest
from ggufmaker import make_tiny_llama

from ggq import cli


@pytest.fixture
def model(tmp_path):
    return make_tiny_llama(tmp_path / "m.gguf", vocab="bpe", type_id=1)


@pytest.fixture
def ggq(capsys):
    """Run a command; return its exit status, the JSON of its stdout, and stderr."""

    def run(*args):
        code = cli.main([str(a) for a in (*args, "--json")])
        done = capsys.readouterr()
        return code, json.loads(done.out) if done.out else None, done.err

    return run


def test_split_and_merge(ggq, model, tmp_path):
    code, planned, _ = ggq("split", model, tmp_path / "s", "--max-tensors", 8, "--dry-run")
    assert (code, planned["written"], len(planned["shards"])) == (0, False, 3)
    code, found, _ = ggq("split", model, tmp_path / "s", "--max-tensors", 8)
    assert (code, found["written"]) == (0, True)
    assert sum(shard["tensors"] for shard in found["shards"]) == 21
    first = found["shards"][0]["path"]
    code, found, _ = ggq("merge", first, tmp_path / "again.gguf")
    assert code == 0
    assert found == {
        "path": str(tmp_path / "again.gguf"),
        "tensors": 21,
        "bytes": (tmp_path / "again.gguf").stat().st_size,
    }


def test_what_is_no_shard_is_not_merged(ggq, model, tmp_path):
    code, found, err = ggq("merge", model, tmp_path / "copy.gguf")
    assert (code, found) == (1, None)
    assert "is no shard of a split model" in err
    assert not (tmp_path / "copy.gguf").exists()


def test_verify(ggq, model, tmp_path):
    code, found, _ = ggq("verify", model, "--tensors")
    assert code == 0
    assert (found["ok"], found["tensors"], found["finite"]) == (True, 21, True)
    data = bytearray(model.read_bytes())
    data[-2:] = b"\x00\x7e"  # a NaN in F16
    model.write_bytes(data)
    code, found, err = ggq("verify", model, "--tensors")
    assert (code, found["ok"]) == (1, False)
    assert "NaN" in found["error"]
    assert "NaN" in err


def test_export(ggq, model, tmp_path):
    code, found, _ = ggq("export", model, tmp_path / "hf", "-q")
    assert (code, found["path"]) == (0, str(tmp_path / "hf"))


def test_pull_and_rm(ggq, tmp_path, monkeypatch):
    monkeypatch.setattr("ggq.hub.pull", lambda name, report, progress: tmp_path / "f")
    monkeypatch.setattr("ggq.hub.remove", lambda name: [tmp_path / "f"])
    (tmp_path / "f").write_bytes(b"four")
    code, found, _ = ggq("pull", "some/model")
    assert (code, found) == (0, {"name": "some/model", "path": str(tmp_path / "f"), "bytes": 4})
    code, found, _ = ggq("rm", "-y", "some/model")
    assert (code, found["deleted"]) == (0, [str(tmp_path / "f")])
    code, found, _ = ggq("pull", "--list")
    assert {"name", "model", "licence"} == set(found[0])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("serve a.gguf -m b.gguf", "give the model once"),
        ("serve -m nowhere.gguf", "nowhere.gguf"),
        ("bench a.gguf -m b.gguf", "give the model once"),
        ("bench", "Missing argument 'MODEL'"),
        ("bench -m nowhere.gguf", "nowhere.gguf"),
        ("eval --text t.txt", "Missing argument 'MODEL...'"),
        ("eval -m nowhere.gguf --text t.txt", "nowhere.gguf"),
    ],
)
def test_models_by_flag(words, told, capsys):
    if words.startswith("serve"):
        pytest.importorskip("starlette", reason="the extra serve is not installed")
    assert cli.main(words.split()) != 0
    assert told in capsys.readouterr().err
