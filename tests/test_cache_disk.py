"""States on disk: the same bits after a restart, within a budget, for this user, never trusted."""

import errno
import logging
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from schedules import ask, drain

import ggq
from ggq.errors import UsageError
from ggq.runtime.batching.savings import Savings
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.cache.disk import BLOCK
from ggq.runtime.cache.folder import StateFolder
from ggq.runtime.generation.generation import Options, generate
from ggq.runtime.sampling import SamplingParams

N_CTX = 2048
GREEDY = SamplingParams(temperature=0.0)
LIMIT = 10**9


@pytest.fixture
def states(tmp_path, monkeypatch):
    """The folder of states; compiled kernels stay where they are."""
    monkeypatch.setattr("ggq.runtime.model.user_cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "states"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_ctx=N_CTX)


def opened(path, **options):
    return ggq.load(path, n_ctx=N_CTX, threads=1, cache_disk=LIMIT, **options)


def prompt(n, seed=0, n_vocab=250):
    return np.random.default_rng(seed).integers(3, n_vocab, n).tolist()


def write(model, ids, n=12):
    """Return an answer's tokens and log-probabilities, and how much of the prompt it evaluated."""
    session, options = model.session(), Options(logprobs=1, ignore_eos=True)
    pieces = generate(session, model.tokenizer, ids, GREEDY, n, options=options)
    told = [(p.token_id, p.logprobs) for p in pieces]
    session.close()
    return told, options.stats.evaluated_tokens


# -- what is found again


def test_a_prompt_is_not_evaluated_again_after_a_restart(path, states):
    ids = prompt(5 * BLOCK + 30)
    with opened(path) as model:
        first, evaluated = write(model, ids)
        assert evaluated == len(ids)
    with opened(path) as model:
        again, evaluated = write(model, ids)
        assert (again, evaluated) == (first, 30)
        other = ids[: 3 * BLOCK + 5] + prompt(40, seed=1)
        beside, evaluated = write(model, other)
        assert evaluated == 45
    with ggq.load(path, n_ctx=N_CTX, threads=1) as model:
        assert write(model, other) == (beside, len(other))


@pytest.mark.parametrize("kind", ["f16", "q4_0"])
def test_logits_of_a_restored_sequence_are_the_same_bits(kind, tmp_path, states):
    path = make_tiny_llama(tmp_path / "tiny.gguf", n_ctx=N_CTX, head_dim=32)
    ids = prompt(3 * BLOCK + 1)
    with opened(path, cache_type=kind) as model:
        session = model.session()
        want = session.evaluate(ids).tobytes()
    with opened(path, cache_type=kind) as model:
        session = model.session()
        session.recall(ids[:-1])
        assert session.ids == ids[: 3 * BLOCK]
        assert session.evaluate(ids[len(session.ids) :]).tobytes() == want


def test_an_answer_is_part_of_what_is_kept(path, states):
    ids = prompt(BLOCK - 10)
    with opened(path) as model:
        said, _ = write(model, ids, n=60)
    with opened(path) as model:
        whole = ids + [token for token, _ in said if token is not None]
        assert write(model, [*whole, 5])[1] == len(whole) + 1 - BLOCK


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "kind"),
    [("gemma2", "Q4_K_M"), ("gpt-oss", "Q4_0"), ("lfm2", "Q4_0"), ("qwen35moe", "F16"),
     ("granite h", "F16"), ("deepseek2", "Q4_K_M")],
)  # fmt: skip
def test_all_kinds_of_layers_come_back(label, kind, tmp_path, states):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from invariance import make_files
    from tinymodels import TINY

    tiny = next(t for t in TINY if t.label == label)
    (path,) = make_files(tiny, tmp_path, [kind])
    ids = prompt(5 * BLOCK + 30, n_vocab=200)
    parting = [ids[: 2 * BLOCK + 9] + prompt(200, seed, 200) for seed in (4, 5)]
    asked = [ids, ids[:-10] + prompt(20, 3, 200), *parting]
    with ggq.load(path, n_ctx=N_CTX, threads=1) as model:
        want = [write(model, each)[0] for each in asked]
        assert " at 0x" not in repr(model.hparams)  # it is part of what states are known by
    with opened(path) as model:
        assert write(model, asked[0])[0] == want[0]
    with opened(path) as model:
        found = [write(model, each) for each in asked]
        assert [told for told, _ in found] == want
        assert [n for _, n in found[:2]] == [30, 40]
        # where two prompts parted the third finds a state, at the latest
        assert found[3][1] == len(asked[3]) - 2 * BLOCK
        scheduler = Scheduler(
            model.engine, model.tokenizer, n_slots=2, savings=Savings(disk=model.disk)
        )
        answers = [
            ask(scheduler, each, max_tokens=12, ignore_eos=True, logprobs=1) for each in asked
        ]
        drain(scheduler)
        scheduler._store.clear()
        told = [[(p.token_id, p.logprobs) for p in a.pieces] for _, a in answers]
        # the last piece has the reason, too
        assert [[t for t, _ in each] for each in told] == [[t for t, _ in e[:-1]] for e in want]
        assert answers[0][0].cached_tokens == 5 * BLOCK


def test_the_scheduler_begins_with_what_is_on_disk(path, states):
    ids = prompt(3 * BLOCK + 20)
    found = []
    for _ in range(2):
        with opened(path) as model:
            s = Scheduler(
                model.engine, model.tokenizer, n_slots=2, savings=Savings(disk=model.disk)
            )
            ticket, answer = ask(s, ids, max_tokens=9, logprobs=1)
            drain(s)
            found.append((ticket.cached_tokens, [(p.token_id, p.logprobs) for p in answer.pieces]))
            again, _ = ask(s, ids, max_tokens=2)  # this time from memory
            drain(s)
            assert again.cached_tokens == len(ids) - 1
            s._store.clear()
            assert model.engine.cache.free_positions == N_CTX
    assert [n for n, _ in found] == [0, 3 * BLOCK]
    assert found[0][1] == found[1][1]


def test_who_wants_no_reuse_leaves_nothing(path, states):
    with opened(path) as model:
        s = Scheduler(model.engine, model.tokenizer, n_slots=2, savings=Savings(disk=model.disk))
        ask(s, prompt(2 * BLOCK), max_tokens=2, reuse=False)
        drain(s)
        s._store.clear()
    assert list(states.iterdir()) == []


def test_without_the_option_nothing_is_written(path, states):
    with ggq.load(path, n_ctx=N_CTX, threads=1) as model:
        write(model, prompt(2 * BLOCK))
        assert model.disk is None
    assert not states.exists()


# -- what a state belongs to


def test_other_types_and_other_weights_are_other_states(path, tmp_path, states):
    ids = prompt(2 * BLOCK + 5)
    with opened(path) as model:
        write(model, ids)
    with opened(path, cache_type="f32") as model:
        assert write(model, ids)[1] == len(ids)
    twin = make_tiny_llama(tmp_path / "twin.gguf", n_ctx=N_CTX, seed=1)  # the same header
    info = path.stat()
    os.utime(twin, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert twin.stat().st_size == info.st_size
    with opened(twin) as model:
        assert write(model, ids)[1] == len(ids)
    with opened(path) as model:
        assert write(model, ids)[1] == 5


# -- files that are not as they were written


def _spoil_a_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _cut(file):
    os.truncate(file, file.stat().st_size - 1)


def _exchange(file):
    other = next(f for f in file.parent.iterdir() if f != file)
    file.write_bytes(other.read_bytes())


def _link(file):
    other = next(f for f in file.parent.iterdir() if f != file)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("spoil", [_spoil_a_byte, _cut, _exchange, _link, os.unlink])
def test_a_spoilt_file_is_removed_and_its_part_evaluated(path, states, spoil, tmp_path):
    ids = prompt(4 * BLOCK + 7)
    with opened(path) as model:
        want, _ = write(model, ids)
    third = next(states.glob("*-000002.full"))
    spoil(third)
    with opened(path) as model:
        session = model.session()
        session.recall(ids[:-1])
        assert len(session.ids) == 2 * BLOCK
        assert not third.exists()
        session.close()
        assert write(model, ids) == (want, len(ids) - 2 * BLOCK)
    with opened(path) as model:
        assert write(model, ids) == (want, 7)  # it was written again


def test_files_and_folder_are_this_users_alone(path, states):
    states.mkdir(parents=True, mode=0o755)
    with opened(path) as model:
        write(model, prompt(2 * BLOCK))
    assert stat.S_IMODE(states.stat().st_mode) == 0o700
    files = list(states.iterdir())
    assert files
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    folder = StateFolder(tmp_path / "states", LIMIT)
    folder.write("0" * 40 + "-000000.full", [np.ones(3, np.uint8)])
    me = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: me + 1)
    with pytest.raises(UsageError, match="states: belongs to another user"):
        StateFolder(tmp_path / "states", LIMIT)
    assert folder.read("0" * 40 + "-000000.full", 3) is None  # nor a file of one


# -- the budget


def name(i, number=0):
    return f"{i:040x}-{number:06}.full"


def files_in(folder):
    return sorted(f.name for f in folder.path.iterdir())


def test_the_longest_unused_go_first(tmp_path):
    folder = StateFolder(tmp_path, 10_500)
    now = time.time()
    for i in range(10):
        folder.write(name(i), [np.zeros(950, np.uint8)])
        os.utime(tmp_path / name(i), (now - 6000 + 100 * i,) * 2)
    folder.touch([name(0)])
    folder.write(name(10), [np.zeros(950, np.uint8)])
    kept = files_in(folder)
    assert name(0) in kept
    assert name(10) in kept
    assert name(1) not in kept
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 10_500


def test_of_one_prompt_the_end_goes_first(tmp_path):
    folder = StateFolder(tmp_path, 10_500)
    for i in range(10):
        folder.write(name(i, i), [np.zeros(950, np.uint8)])
    folder.write(name(10), [np.zeros(950, np.uint8)])
    kept = files_in(folder)
    assert name(0, 0) in kept
    assert name(9, 9) not in kept


def test_a_budget_that_is_smaller_now_is_kept_to(tmp_path):
    folder = StateFolder(tmp_path, 100_000)
    for i in range(10):
        folder.write(name(i), [np.zeros(950, np.uint8)])
    StateFolder(tmp_path, 5000)
    assert 0 < len(files_in(folder)) <= 5
    folder = StateFolder(tmp_path, 500)
    folder.write(name(1), [np.zeros(950, np.uint8)])
    assert files_in(folder) == []


def test_what_a_killed_process_left_goes_and_what_is_not_ours_stays(tmp_path):
    old = time.time() - 7200
    for each in ("tmp-old", "tmp-new", "notes.txt"):
        (tmp_path / each).write_bytes(b"x")
    os.utime(tmp_path / "tmp-old", (old, old))
    folder = StateFolder(tmp_path, 5000)
    assert files_in(folder) == ["notes.txt", "tmp-new"]


# -- others at the same time, and no room


def test_a_full_disk_is_told_once_and_changes_no_answer(path, states, monkeypatch, caplog):
    ids = prompt(3 * BLOCK + 2)
    with ggq.load(path, n_ctx=N_CTX, threads=1) as model:
        want, _ = write(model, ids)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "ggq.cache"):
        patch.setattr("ggq.runtime.cache.folder.os.replace", full)
        with opened(path) as model:
            assert write(model, ids)[0] == want
    assert [r.getMessage() for r in caplog.records] == [
        f"{states}: No space left on device: nothing is kept there"
    ]
    assert list(states.iterdir()) == []  # no half files
    with opened(path) as model:
        assert write(model, ids) == (want, len(ids))


_CHILD = """
import sys
import ggq
from ggq.runtime import model as module
from pathlib import Path

path, cache = sys.argv[1:]
module.user_cache_dir = lambda: Path(cache)
for _ in range(3):
    with ggq.load(path, n_ctx=1024, threads=1, cache_disk=400_000) as model:
        for start in range(6):
            ids = [3 + (7 * i + i // 40 + start // 3) % 240 for i in range(600 + start)]
            print("".join(model.generate(ids, max_tokens=6, temperature=0.0)))
"""


@pytest.mark.slow
def test_processes_share_a_folder(path, tmp_path):
    """Two write, read and make room in the same small folder; both say what one alone says."""
    command = [sys.executable, "-c", _CHILD, str(path)]
    both = [
        subprocess.Popen([*command, str(tmp_path / "shared")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    alone = subprocess.run(
        [*command, str(tmp_path / "alone")], capture_output=True, text=True, check=True
    )
    assert outs == [alone.stdout] * 2
    assert any((tmp_path / "shared/states").iterdir())


def test_sizes_are_read_as_people_write_them(path):
    with pytest.raises(UsageError, match="no size; write 500M"):
        ggq.load(path, cache_disk="much")
    with ggq.load(path, cache_disk="2G") as model:
        assert model.disk_bytes == 2 * 10**9
