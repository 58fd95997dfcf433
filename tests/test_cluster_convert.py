"""Conversions on a Ray cluster of four nodes in this machine: whatever dies, the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("ray", reason="the extra cluster is not installed")

from clustermaker import Nodes
from hfmaker import TEXT, make_hf

from ggq import cli
from ggq.cluster.tasks import Share, each
from ggq.converters.convert import convert
from ggq.errors import GGQError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
PIECES = ("--split-max-size", "64k")
PASSES = {
    "imatrix": ("IQ3_XXS", "imatrix:tokens=1024,n_ctx=64"),
    "gptq": ("Q4_0", "gptq:tokens=1024,n_ctx=64"),
}


@pytest.fixture(scope="module")
def cluster():
    with Nodes(3) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    words = TEXT.split()
    order = np.random.default_rng(3).integers(0, len(words), 3000)
    (folder / "text.txt").write_text(" ".join(words[i] for i in order), "utf-8")
    small = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 2}
    return make_hf(folder / "hf", num_hidden_layers=8, **small)


def ggq(*args):
    return cli.main(["convert", *map(str, args)])


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def local(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    assert ggq(source, folder / "out.gguf", "-t", "Q4_K_M", *PIECES, "-q") == 0
    assert len(files(folder)) > 20
    return files(folder)


def command(source, out, address):
    """Return the command of a driver, which can be killed."""
    ask = ["convert", str(source), str(out), "-t", "Q4_K_M", *PIECES, "-j", "1"]
    return [sys.executable, "-m", "ggq", *ask, "--cluster", address]


def test_the_nodes_make_one_machine_s_files(cluster, source, local, tmp_path, capsys):
    out = tmp_path / "out.gguf"
    assert ggq(*command(source, out, cluster.address)[4:]) == 0
    assert files(tmp_path) == local
    err = capsys.readouterr().err
    told = [line for line in err.splitlines() if "MB of memory a process at most" in line]
    assert told and all("a second" in line for line in told), err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_stopped_is_gone_on_with(cluster, source, local, tmp_path, how):
    """By a power failure or by Ctrl-C; files that were made are not made again."""
    out = tmp_path / "out.gguf"
    ask = command(source, out, cluster.address)
    driver = subprocess.Popen(ask, stderr=subprocess.PIPE, text=True)
    while len(made := list(tmp_path.glob("*.unfinished-*/*.sha256"))) < 3:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(how)
    _, err = driver.communicate(timeout=100)
    assert not list(tmp_path.glob("out-*")), "it ended before it was stopped"
    if how == signal.SIGINT:
        assert driver.returncode == 130
        assert "the same command goes on" in err and "Traceback" not in err
    before = {p: p.stat().st_mtime_ns for p in made}
    again = []

    def watch():
        while not list(tmp_path.glob("out-*")) and not again:
            with contextlib.suppress(OSError):
                again.extend(p for p, t in before.items() if p.stat().st_mtime_ns != t)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    subprocess.run(ask, check=True)
    watcher.join(10)
    assert again == [] and files(tmp_path) == local


def test_killed_processes_and_a_lost_node_change_nothing(cluster, source, local, tmp_path):
    out, stop, killed = tmp_path / "out.gguf", threading.Event(), []

    def kill():
        while not stop.wait(0.02) and len(killed) < 3:
            at_work = cluster.workers("_run")
            if not at_work or not list(tmp_path.glob("*.unfinished-*/*.sha256")):
                continue
            if not killed:
                cluster.kill_node(cluster.nodes[0])
                killed.append("node")
                continue
            with contextlib.suppress(OSError):
                os.kill(at_work[0], signal.SIGKILL)
                killed.append(at_work[0])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert ggq(*command(source, out, cluster.address)[4:], "-q") == 0
    finally:
        stop.set()
        killer.join()
    assert killed[0] == "node" and len(killed) > 1
    assert files(tmp_path) == local


@pytest.mark.parametrize("name", PASSES)
def test_passes_over_the_nodes_are_one_machine_s_in_every_bit(cluster, source, tmp_path, name):
    pytest.importorskip("torch")
    kind, steps = PASSES[name]
    ask = ["-t", kind, *PIECES, "--prepass", steps]
    ask += ["--calibration", source.parent / "text.txt", "-q"]
    for folder, more in (("here", ()), ("there", ("--cluster", cluster.address, "-j", "1"))):
        (tmp_path / folder).mkdir()
        assert ggq(source, tmp_path / folder / "out.gguf", *ask, *more) == 0
    assert files(tmp_path / "there") == files(tmp_path / "here")


def test_a_folder_for_engines(cluster, source, tmp_path):
    ask = ["-t", "W4A16", "--group-size", "32", "--split-max-size", "200k", "-q"]
    for folder, more in (("here", ()), ("there", ("--cluster", cluster.address, "-j", "1"))):
        assert ggq(source, tmp_path / folder, *ask, *more) == 0
    assert files(tmp_path / "there") == files(tmp_path / "here")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--prepass", "awq"), "--cluster: not with pre-pass awq"),
        (("--shard", "1/2"), "give one of them"),
        (("--task-memory", "x"), "x"),
    ],
)
def test_wrong_wishes(cluster, source, tmp_path, more, message, capsys):
    ask = [source, tmp_path / "o.gguf", *PIECES, "--cluster", cluster.address, *more]
    assert ggq(*ask) == 1
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_one_file_is_no_work_for_many(cluster, source, tmp_path, capsys):
    assert ggq(source, tmp_path / "o.gguf", "--cluster", cluster.address) == 1
    assert "give --split-max-size" in capsys.readouterr().err


def test_what_a_node_cannot_read_is_told_with_its_name(cluster, source, tmp_path, monkeypatch):
    def gone(item):
        raise FileNotFoundError(2, "no such file", item)

    with cluster.driver(), pytest.raises(GGQError, match=r"node .*/.*: .*no such file: 'x'"):
        list(each(gone, ["x"], (), Share(1, 1)))


def test_an_item_that_ends_its_processes_ends_the_run(cluster):
    with cluster.driver(), pytest.raises(GGQError, match="died 4 times"):
        list(each(lambda item: os.kill(os.getpid(), signal.SIGKILL), ["x"], (), Share(1, 1)))


def test_results_come_in_order(cluster):
    def late(item):
        time.sleep(0.3 * (item == 0))
        return item * item

    with cluster.driver():
        found = [(n, done.value) for n, done in each(late, range(12), (), Share(1, 1))]
    assert found == [(i, i * i) for i in range(12)]


def test_a_local_run_s_parts_are_taken(cluster, source, local, tmp_path):
    """``--shard`` and ``--cluster`` make the same parts in the same folder."""
    out = tmp_path / "out.gguf"
    convert(source, out, "Q4_K_M", split_max_size=PIECES[1], shard="1/2")
    assert ggq(*command(source, out, cluster.address)[4:], "-q") == 0
    assert files(tmp_path) == local
