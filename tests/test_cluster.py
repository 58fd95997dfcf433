"""Batches on a Ray cluster of two nodes in this machine: whatever dies, the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque

import pytest

pytest.importorskip("ray", reason="the extra cluster is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")

from clustermaker import Nodes, write_requests
from ggufmaker import make_tiny_llama

from ggq import cli
from ggq.cluster.pool import Pool, Size
from ggq.errors import GGQError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Nodes() as found:
        yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return make_tiny_llama(folder / "t.gguf", n_ctx=512, vocab="bpe")


def batch(*args):
    return cli.main(["batch", *map(str, args)])


@pytest.fixture(scope="module")
def answered(path, tmp_path_factory):
    """Return an input of mixed shapes with poison, and the local run's bytes."""
    folder = tmp_path_factory.mktemp("answered")
    source = write_requests(folder / "in.jsonl", 60)
    assert batch(source, folder / "local.jsonl", "-m", path, "-t", "1", "-c", "256", "-q") == 1
    return source, (folder / "local.jsonl").read_bytes()


def on(cluster, path, *more):
    return ("-m", path, "-c", "256", "-t", "1", "--cluster", cluster.address, *more)


def test_the_cluster_answers_the_same_bytes(cluster, path, answered, tmp_path, capsys):
    source, local = answered
    out = tmp_path / "out.jsonl"
    assert batch(source, out, *on(cluster, path)) == 1
    assert out.read_bytes() == local
    assert not (tmp_path / "out.jsonl.parts").exists()
    err = capsys.readouterr().err
    assert "60/60 lines" in err
    assert " lines, " in err  # a node's rate
    assert batch(source, out, *on(cluster, path)) == 1  # done already: the same
    assert out.read_bytes() == local


def test_killed_actors_change_nothing(cluster, path, answered, tmp_path):
    source, local = answered
    out, stop, killed = tmp_path / "out.jsonl", threading.Event(), []

    def kill():
        while not stop.wait(0.2) and len(killed) < 2:
            for pid in cluster.workers("Answerer.work"):
                if list((tmp_path / "out.jsonl.parts").glob("0*")):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert batch(source, out, *on(cluster, path, "--actors", "1:2")) == 1
    finally:
        stop.set()
        killer.join()
    assert out.read_bytes() == local


def test_ctrl_c_leaves_a_state_to_go_on_from(cluster, path, answered, tmp_path):
    """A real SIGINT to the driver; what was answered is not asked again."""
    source, local = answered
    out, parts = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    ask = [sys.executable, "-m", "ggq", "batch", str(source), str(out)]
    ask += map(str, on(cluster, path, "--actors", "1:1"))
    driver = subprocess.Popen(ask, stderr=subprocess.PIPE, text=True)
    while not (made := list(parts.glob("0*"))):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=100)
    assert driver.returncode == 130 and not out.exists(), err
    assert "the same command goes on" in err and "Traceback" not in err
    before = {p: p.stat().st_mtime_ns for p in made}
    driver = subprocess.Popen(ask, stderr=subprocess.DEVNULL)
    while driver.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # all are merged and gone
            assert {p: p.stat().st_mtime_ns for p in made} == before
        time.sleep(0.02)
    assert driver.returncode == 1  # two poisoned lines
    assert out.read_bytes() == local


def test_a_node_without_the_model_is_named(cluster, answered, tmp_path, capsys):
    source, _ = answered
    assert batch(source, tmp_path / "out.jsonl", *on(cluster, tmp_path / "none.gguf")) == 1
    err = capsys.readouterr().err
    assert "none.gguf: put it there, or give --send-model" in err
    assert "node " in err
    assert "Traceback" not in err


def test_a_model_that_is_sent(cluster, path, answered, tmp_path):
    source, local = answered
    out = tmp_path / "out.jsonl"
    assert batch(source, out, *on(cluster, path, "--send-model")) == 1
    assert out.read_bytes() == local


@pytest.fixture
def by_value():
    """Have workers get this file's classes with the work: they cannot import tests."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Fragile:
    """An actor that one item kills."""

    def ready(self):
        return {"node": "n"}

    def work(self, item):
        if item == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return item.upper()


class Items:
    def __init__(self, *items):
        self.waiting, self.found, self.given_up = deque(items), [], []

    def payload(self, item):
        return item

    def ready(self, facts):
        pass

    def done(self, item, result, node):
        self.found.append(result)

    def suspected(self, item, why):
        self.given_up.append(item)


def test_an_item_that_kills_its_actor_is_given_up(cluster, by_value):
    work = Items("a", "poison", "b", "c")
    with cluster.driver():
        Pool(Fragile, (), Size(1, 2, 1, 1)).run(work)
    assert (sorted(work.found), work.given_up) == (["A", "B", "C"], ["poison"])


class Stillborn(Fragile):
    def ready(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_actors_that_never_begin_end_the_run(cluster, by_value):
    with cluster.driver(), pytest.raises(GGQError, match="died while they began"):
        Pool(Stillborn, (), Size(1, 2, 1, 1)).run(Items("a"))


@pytest.mark.parametrize("wrong", ["0", "3:2", "a", "1:2:3", ""])
def test_wrong_numbers_of_actors(wrong, answered, tmp_path, capsys):
    source, _ = answered
    code = batch(source, tmp_path / "o", "-m", "none.gguf", "--cluster", "--actors", wrong)
    assert code == 1
    assert "expected MIN or MIN:MAX" in capsys.readouterr().err


def test_no_cluster_there(answered, path, tmp_path, capsys):
    source, _ = answered
    where = "127.0.0.1:1"
    assert batch(source, tmp_path / "o", "-m", path, "--cluster", where) == 1
    assert f"no Ray cluster at {where}" in capsys.readouterr().err
