"""A conversion in parts: any task in any order, killed or doubled, gives one machine's bytes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from hfmaker import make_hf

from ggq.cli import cli
from ggq.converters.conversion import Conversion
from ggq.converters.convert import convert
from ggq.converters.parts import Parts
from ggq.errors import UsageError

SIZE = "120k"
KINDS = {"gguf": {"type": "Q4_K_M"}, "folder": {"type": "W4A16", "group_size": 32}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    small = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}
    return make_hf(folder / "hf", num_hidden_layers=4, **small)


def name_of(kind, folder):
    return folder / ("out.gguf" if kind == "gguf" else "out")


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def local(kind, source, tmp_path_factory):
    """Return all files of one machine's run."""
    folder = tmp_path_factory.mktemp(f"local-{kind}")
    made = convert(source, name_of(kind, folder), split_max_size=SIZE, **KINDS[kind])
    assert len(made.shards) > 3
    return files(folder)


def shard(source, out, kind, share, **more):
    return convert(source, out, split_max_size=SIZE, shard=share, **KINDS[kind], **more)


def test_tasks_in_any_order_make_one_machine_s_files(kind, source, local, tmp_path):
    out = name_of(kind, tmp_path)
    for share in ("3/3", "1/3", "3/3"):
        made = shard(source, out, kind, share)
        assert made.missing and all(p.exists() for p in made)
        assert not out.exists() and not list(tmp_path.glob("out-*"))
    last = shard(source, out, kind, "2/3")
    assert last.missing == 0 and all(p.exists() for p in last)
    assert files(tmp_path) == local


def test_parts_are_kept_by_name_and_hash(kind, source, local, tmp_path, monkeypatch):
    """A whole part is not made again; one whose bytes have changed is, and one without receipt."""
    out, made = name_of(kind, tmp_path), []
    for share in ("1/2", "1/2"):
        parts = list(shard(source, out, kind, share))
    assert len(parts) > 1
    damaged = bytearray(parts[0].read_bytes())
    damaged[-1] ^= 1
    parts[0].write_bytes(damaged)
    parts[1].with_name(parts[1].name + ".sha256").unlink()
    whole = Parts.make
    monkeypatch.setattr(Parts, "make", lambda s, i, p=None: made.append(i) or whole(s, i, p))
    shard(source, out, kind, "1/2")
    assert made == [0, 2]
    shard(source, out, kind, "2/2")
    assert files(tmp_path) == local


def test_merged_it_is_the_file_that_was_never_cut(source, tmp_path):
    for i in (2, 1):
        made = shard(source, tmp_path / "out.gguf", "gguf", f"{i}/2")
    (whole,) = convert(source, tmp_path / "whole.gguf", "Q4_K_M")
    done = CliRunner().invoke(cli, ["merge", str(made[0]), str(tmp_path / "merged.gguf")])
    assert done.exit_code == 0
    assert (tmp_path / "merged.gguf").read_bytes() == whole.read_bytes()


def test_naming_that_was_stopped_goes_on(kind, source, local, tmp_path, monkeypatch):
    out, naming = name_of(kind, tmp_path), Conversion.forget

    def stop(self):
        raise KeyboardInterrupt

    shard(source, out, kind, "1/2")
    monkeypatch.setattr(Conversion, "forget", stop)
    with pytest.raises(KeyboardInterrupt):
        shard(source, out, kind, "2/2")
    monkeypatch.setattr(Conversion, "forget", naming)
    force = kind == "folder"  # it has its name already, and is not looked into
    shard(source, out, kind, "1/2", force=force)
    assert files(tmp_path) == local


def test_parts_of_another_model_are_not_taken(source, tmp_path):
    other = make_hf(
        tmp_path / "hf", seed=2, num_hidden_layers=4, hidden_size=128, intermediate_size=256,
        num_attention_heads=2,
    )  # fmt: skip
    out = tmp_path / "out.gguf"
    folders = set()
    for model, more in ((source, {}), (other, {}), (source, {"via": "f16"}), (source, {})):
        (part,) = {p.parent for p in shard(model, out, "gguf", "1/2", **more)}
        folders.add(part)
    assert len(folders) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals to processes are POSIX")
@pytest.mark.slow
def test_ctrl_c_leaves_what_is_done(source, local, kind, tmp_path):
    """A real SIGINT while parts are made: the same command goes on, and nothing else is left."""
    out = name_of(kind, tmp_path)
    more = [w for k, v in KINDS[kind].items() for w in (f"--{k.replace('_', '-')}", str(v))]
    command = [sys.executable, "-m", "ggq", "convert", str(source), str(out), *more]
    command += ["--split-max-size", SIZE, "--shard", "1/1", "-q"]
    slowed = "import time, ggq.converters.parts as p; made = p.Parts.make\n"
    slowed += "p.Parts.make = lambda s, i, x=None: (made(s, i, x), time.sleep(60 * (i == 1)))\n"
    slowed += "from ggq.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    task = subprocess.Popen([sys.executable, "-c", slowed, *command[3:]])
    while not list(tmp_path.glob("out*.unfinished-*/*00002-of*.sha256")):
        assert task.poll() is None
        time.sleep(0.05)
    task.send_signal(signal.SIGINT)
    assert task.wait(60) == 130
    assert not out.exists()
    subprocess.run(command, check=True)
    assert files(tmp_path) == local


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"shard": "0/3"}, "expected I/N"),
        ({"shard": "4/3"}, "expected I/N"),
        ({"shard": "x"}, "expected I/N"),
        ({"shard": ""}, "is empty"),
        ({"shard": "1/2", "split_max_size": None}, "give split_max_size"),
        ({"shard": "1/2", "quality": "best"}, "not with pre-pass gptq"),
        ({"shard": "1/2", "prepasses": ["awq"]}, "not with pre-pass awq"),
        ({"shard": "1/2", "target_bpw": 4.0}, "target_bpw: not for a part"),
        ({"shard": "1/2", "card": True}, "card: not for a part"),
        ({"shard": "1/2", "report": "r.html"}, "report: not for a part"),
        ({"shard": "1/2", "mmproj": True}, "mmproj: not for a part"),
    ],
)
def test_wrong_wishes_are_refused_before_any_work(source, tmp_path, more, message):
    if more.get("quality") or more.get("prepasses"):
        pytest.importorskip("torch")
    with pytest.raises(UsageError, match=message):
        convert(source, tmp_path / "out.gguf", **{"split_max_size": SIZE, **more})
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused_first(source, tmp_path):
    (tmp_path / "out.gguf").write_text("mine")
    first = convert(source, tmp_path / "a.gguf", split_max_size=SIZE)[0]
    first.rename(tmp_path / first.name.replace("a-", "out-"))
    (tmp_path / "out.gguf").unlink()
    with pytest.raises(UsageError, match="exists"):
        shard(source, tmp_path / "out.gguf", "gguf", "1/2")
    assert not list(tmp_path.glob("*.unfinished-*"))


def test_more_tasks_than_files_are_told(source, tmp_path):
    made = convert(source, tmp_path / "out.gguf", split_max_size="1G", shard="2/2")
    assert list(made) == [] and made.missing == 1
    assert any("1 file for 2 tasks" in w for w in made.warnings)
