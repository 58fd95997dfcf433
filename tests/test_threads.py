"""How many threads are right: machines faked as file trees, and threads that race on real ones."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import ggq
from ggq.runtime.engine.cpu import threads
from tests.ggufmaker import make_tiny_llama

CPU = "sys/devices/system/cpu"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that fakes a Linux machine and tells the default number of threads."""
    number = iter(range(100))

    def fake(files, cpus, platform="linux"):
        root = tmp_path / str(next(number))
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        monkeypatch.setattr(threads, "_ROOT", root)
        monkeypatch.setattr(threads, "_allowed", lambda: set(cpus))
        monkeypatch.setattr(sys, "platform", platform)
        return threads.default_threads()

    return fake


def siblings(*groups):
    return {
        f"{CPU}/cpu{c}/topology/thread_siblings_list": ",".join(map(str, group))
        for group in groups
        for c in group
    }


def test_hyperthreads_count_once(machine):
    pairs = siblings((0, 4), (1, 5), (2, 6), (3, 7))
    assert machine(pairs, range(8)) == 4
    assert machine(pairs, {0, 4, 1}) == 2  # the affinity of the process
    assert machine(pairs, {6}) == 1


def test_without_topology_every_processor_is_a_core(machine):
    assert machine({}, range(6)) == 6


@pytest.mark.parametrize(
    ("limit", "want"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("", 8)],
)
def test_a_containers_limit_is_kept(machine, limit, want):
    assert machine({"sys/fs/cgroup/cpu.max": limit}, range(8)) == want


def test_limits_of_groups_above_count_too(machine):
    groups = {
        "proc/self/cgroup": "0::/machine.slice/box.scope/inner\n",
        "sys/fs/cgroup/machine.slice/box.scope/inner/cpu.max": "max 100000",
        "sys/fs/cgroup/machine.slice/box.scope/cpu.max": "300000 100000",
        "sys/fs/cgroup/machine.slice/cpu.max": "600000 100000",
    }
    assert machine(groups, range(8)) == 3


def test_control_groups_of_version_one(machine):
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n",
        "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_quota_us": "200000",
        "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_period_us": "100000",
    }
    assert machine(files, range(8)) == 2
    files["sys/fs/cgroup/cpu/docker/ab/cpu.cfs_quota_us"] = "-1"
    assert machine(files, range(8)) == 8
    inside = {k.replace("/docker/ab", ""): v for k, v in files.items()}  # as a container sees it
    inside["sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "100000"
    assert machine(inside, range(8)) == 1


def test_hybrid_processors_use_their_performance_cores(machine):
    intel = siblings((0, 1), (2, 3), (4,), (5,), (6,), (7,))
    assert machine(intel | {"sys/devices/cpu_core/cpus": "0-3"}, range(8)) == 2
    assert machine(intel | {"sys/devices/cpu_core/cpus": "0-3"}, {4, 5}) == 2  # kept off them
    clocks = dict(enumerate([5000] * 4 + [3800] * 4))
    speeds = {f"{CPU}/cpu{c}/cpufreq/cpuinfo_max_freq": f"{v}000" for c, v in clocks.items()}
    assert machine(intel | speeds, range(8)) == 2
    favoured = {name: "4700000" if "cpu0" in name else "4500000" for name in speeds}
    assert machine(favoured, range(8)) == 8


def test_capacities_of_arm_cores(machine):
    rated = [1024, 1024, 1024, 1024, 446, 446, 446, 446]
    assert (
        machine({f"{CPU}/cpu{c}/cpu_capacity": str(v) for c, v in enumerate(rated)}, range(8)) == 4
    )


def test_other_systems_use_every_processor(machine):
    assert machine({}, range(6), platform="win32") == 6


def test_threads_that_race_never_change_a_result():
    """Many more threads than cores, plans that alternate: late workers meet the next step."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = make_tiny_llama(Path(folder) / "t.gguf", n_layer=1, n_ctx=1024)
        with ggq.load(path, threads=9, cache_type="f32") as model:
            ids = rng.integers(3, 200, 600)
            want = {n: model.logits(ids[:n]) for n in (1, 4, 5, 60)}
            session = model.session()
            session.evaluate(ids[:590])  # far enough in that positions are split
            far = session.evaluate(ids[590:591])
            for _ in range(60):
                for n in (5, 1, 60, 4):
                    assert np.array_equal(model.logits(ids[:n]), want[n])
                session.truncate(590)
                assert np.array_equal(session.evaluate(ids[590:591]), far)
