"""The GGUF writer: round trips, exact sizes, splits, and never a half-written file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

from ggq.errors import FormatError, UsageError
from ggq.gguf import GGUFWriter, open_gguf, spec


def declare(w, n_tensors=3, rows=5):
    """Declare a few F32 tensors of width 8."""
    w.add("general.architecture", "llama")
    for i in range(n_tensors):
        w.add_tensor(f"t{i}", (rows, 8), 0)


def rows_of(i, rows=5):
    return np.full((rows, 8), i, np.float32).view(np.uint8)


def write_all(path, n_tensors=3, **options):
    with GGUFWriter(path, **options) as w:
        declare(w, n_tensors)
        w.begin()
        for i in range(n_tensors):
            w.write(f"t{i}", rows_of(i))
        return w.finish()


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_type_table_agrees_with_the_gguf_package():
    constants = pytest.importorskip("gguf").constants
    theirs = {int(k): (k.name, *v) for k, v in constants.GGML_QUANT_SIZES.items()}
    del theirs[9]  # the package counts Q8_1's halves as floats: 40 bytes, ggml's block has 36
    assert {i: tuple(t) for i, t in spec.TYPES.items() if i in theirs} == theirs
    assert not spec.REMOVED_TYPES & set(spec.TYPES)
    assert [spec.VALUE_NAMES[t] for t in (spec.STR, spec.ARRAY, spec.F64)] == [
        "str",
        "array",
        "f64",
    ]


def test_tensors_of_odd_sizes_begin_where_the_header_says(tmp_path):
    odd = {f"t{n}": np.arange(3 * n, dtype=np.float32).reshape(3, n) for n in (5, 7, 8, 9)}
    with GGUFWriter(tmp_path / "a.gguf") as w:
        w.add("general.architecture", "llama")
        for name, values in odd.items():
            w.add_tensor(name, values.shape, 0)
        w.begin()
        for name, values in odd.items():
            w.write(name, values.view(np.uint8))
        w.finish()
    with open_gguf(tmp_path / "a.gguf") as f:
        assert all((f.data(n).view(np.float32) == values).all() for n, values in odd.items())


def test_copy_of_a_file_is_the_same_file(tmp_path):
    source = make_tiny_llama(tmp_path / "a.gguf", vocab="bpe")
    with open_gguf(source) as f, GGUFWriter(tmp_path / "b.gguf") as w:
        w.copy_metadata(f.metadata)
        for t in f.tensors.values():
            w.add_tensor(t.name, t.shape, t.type_id)
        w.begin()
        for name in f.tensors:
            data = f.data(name)
            w.write(name, data[: len(data) // 2])
            w.write(name, data[len(data) // 2 :])
    assert (tmp_path / "b.gguf").read_bytes() == source.read_bytes()


def test_inferred_types(tmp_path):
    path = tmp_path / "t.gguf"
    cases = {
        "bool": (True, spec.BOOL, None),
        "int": (3, spec.U32, None),
        "negative": (-3, spec.I32, None),
        "large": (2**40, spec.U64, None),
        "float": (0.5, spec.F32, None),
        "str": ("x", spec.STR, None),
        "numpy": (np.uint16(3), spec.U32, None),
        "ints": ([1, -2], spec.ARRAY, spec.I32),
        "u32s": (np.arange(3, dtype=np.uint32), spec.ARRAY, spec.U32),
        "floats": ([0.5, 1.0], spec.ARRAY, spec.F32),
        "halves": (np.ones(2, np.float16), spec.ARRAY, spec.F32),
        "bools": ([True, False], spec.ARRAY, spec.BOOL),
        "strs": (["a", b"\xff"], spec.ARRAY, spec.STR),
        "pair": (([1, 2], spec.U8), spec.ARRAY, spec.U8),
        "empty": ([], spec.ARRAY, spec.STR),
    }
    with GGUFWriter(path) as w:
        for key, (value, _, _) in cases.items():
            w.add(key, value)
        w.begin()
    with open_gguf(path) as f:
        for key, (_, type_id, item_type) in cases.items():
            assert (f.value_type(key), f.array_type(key)) == (type_id, item_type), key


@pytest.mark.parametrize(
    ("value", "type_id"),
    [
        (-1, spec.U32),
        (256, spec.U8),
        (1.5, spec.U32),
        ("x", spec.U32),
        (2, spec.BOOL),
        (7, spec.STR),
        (None, None),
        ([1, 300], spec.U8),
        ([1.5], spec.I32),
        ([[1], [2]], None),
        ({}, None),
        (2**70, None),
        (1, 99),
    ],
)
def test_values_that_do_not_fit_name_the_key(tmp_path, value, type_id):
    with GGUFWriter(tmp_path / "t.gguf") as w, pytest.raises(FormatError, match=r"key 'some\.key'"):
        w.add("some.key", value, type_id)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "shape", "type_id"),
    [
        ("", (1,), 0),
        ("n" * 64, (1,), 0),
        ("nul\0", (1,), 0),
        ("d", (), 0),
        ("d", (1, 1, 1, 1, 1), 0),
        ("d", (0, 4), 0),
        ("type", (4,), 4),
        ("block", (2, 33), 8),
        ("taken", (4,), 0),
    ],
)
def test_tensors_that_gguf_cannot_hold(tmp_path, name, shape, type_id):
    with GGUFWriter(tmp_path / "t.gguf") as w:
        w.add_tensor("taken", (4,), 0)
        with pytest.raises(FormatError, match="tensor '"):
            w.add_tensor(name, shape, type_id)


def test_misuse_is_refused(tmp_path):
    with GGUFWriter(tmp_path / "t.gguf") as w:
        declare(w)
        with pytest.raises(ValueError, match="declaring"):
            w.write("t0", rows_of(0))
        w.begin()
        with pytest.raises(ValueError, match="expected t0"):
            w.write("t1", rows_of(1))
        with pytest.raises(ValueError, match="whole rows"):
            w.write("t0", rows_of(0)[:, :-1])
        with pytest.raises(ValueError, match="more rows"):
            w.write("t0", rows_of(0, 6))
        with pytest.raises(ValueError, match="t0 is not complete"):
            w.finish()
        w.abort()
    assert files(tmp_path) == []


def test_refuses_to_overwrite(tmp_path):
    path = tmp_path / "t.gguf"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists; force=True"):
        GGUFWriter(path)
    write_all(path, force=True)
    with open_gguf(path) as f:
        assert len(f.tensors) == 3
    with pytest.raises(UsageError, match="no such folder"):
        GGUFWriter(tmp_path / "none" / "t.gguf")
    with pytest.raises(UsageError, match="is a folder"):
        GGUFWriter(tmp_path, force=True)


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "t.gguf"
    with pytest.raises(UsageError, match="exists; force=True"), GGUFWriter(path) as w:
        w.add("a", 1)
        w.begin()
        path.write_bytes(b"precious")
    assert path.read_bytes() == b"precious" and files(tmp_path) == ["t.gguf"]


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), GGUFWriter(tmp_path / "t.gguf") as w:
        declare(w)
        w.begin()
        w.write("t0", rows_of(0))
        assert len(files(tmp_path)) == 1
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_a_full_disk_is_told_before_writing(tmp_path):
    with GGUFWriter(tmp_path / "t.gguf") as w:
        w.add_tensor("huge", (1 << 30, 1 << 20), 0)
        assert w.plan()[0].nbytes > 1 << 52
        with pytest.raises(UsageError, match="the disk has"):
            w.begin()
    assert files(tmp_path) == []


@pytest.mark.parametrize("limits", [{}, {"split_max_bytes": 600}, {"split_max_tensors": 2}])
def test_planned_sizes_are_exact(tmp_path, limits):
    with GGUFWriter(tmp_path / "t.gguf", **limits) as w:
        declare(w, 9)
        plans = w.plan()
        assert files(tmp_path) == []
    paths = write_all(tmp_path / "t.gguf", 9, **limits)
    assert [p.path for p in plans] == paths
    assert [p.nbytes for p in plans] == [p.stat().st_size for p in paths]
    assert (len(paths) > 1) == bool(limits)


def test_splits_carry_their_numbers(tmp_path):
    paths = write_all(tmp_path / "t.gguf", 9, split_max_bytes=600)
    assert all(p.stat().st_size <= 600 for p in paths)
    assert paths[1].name == f"t-00002-of-{len(paths):05d}.gguf"
    for i, path in enumerate(paths):
        with open_gguf(path, follow_splits=False) as f:
            assert (f.metadata["split.no"], f.metadata["split.count"]) == (i, len(paths))
            assert f.value_type("split.no") == f.value_type("split.count") == spec.U16
            assert f.metadata["split.tensors.count"] == 9
            assert f.value_type("split.tensors.count") == spec.I32
            assert ("general.architecture" in f.metadata) == (i == 0)
    with open_gguf(paths[0]) as f:
        assert all(f.data(f"t{i}").tobytes() == rows_of(i).tobytes() for i in range(9))


def test_a_split_without_need_is_a_plain_file(tmp_path):
    assert write_all(tmp_path / "t.gguf", split_max_bytes=1 << 20) == [tmp_path / "t.gguf"]


def test_too_many_shards_are_refused(tmp_path):
    with GGUFWriter(tmp_path / "t.gguf", split_max_tensors=1) as w:
        declare(w, spec.MAX_SHARDS + 1)
        with pytest.raises(UsageError, match="shards"):
            w.begin()


def test_llama_cpp_reads_plain_and_split_files(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    plain = make_tiny_llama(tmp_path / "a.gguf")
    split = make_tiny_llama(tmp_path / "b.gguf", split_max_bytes=150_000)
    logits = []
    for path in (plain, split):
        model = llama_cpp.Llama(str(path), n_ctx=32, n_threads=1, logits_all=True, verbose=False)
        model.eval([1, 300, 310])
        logits.append(model.scores[2].copy())
        model.close()
    np.testing.assert_array_equal(*logits)
    assert np.ptp(logits[0]) > 0.1


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_gguf_writer import write_all
count, limit = 0, int(sys.argv[3])
def deadly(call):
    def wrapped(*args, **kwargs):
        global count
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        return call(*args, **kwargs)
    return wrapped
for name in ("fsync", "link", "unlink", "replace"):
    setattr(os, name, deadly(getattr(os, name)))
write_all(sys.argv[2], 9, **eval(sys.argv[4]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, "t.gguf"),
        ({"force": True}, "t.gguf"),
        ({"force": True, "split_max_tensors": 4}, "t-00001-of-00003.gguf"),
    ],
)
def test_killed_at_every_step_leaves_nothing_or_all(tmp_path, options, first):
    """Kill the process before its k-th call that touches names or the disk, for every k."""
    here, path = str(Path(__file__).parent), tmp_path / "t.gguf"
    for k in range(20):
        if options.get("force"):  # an older, complete model is in the way
            write_all(path, 9 if len(options) > 1 else 2, **options)
        command = [sys.executable, "-c", KILLED, here, str(path), str(k), repr(options)]
        done = subprocess.run(command, cwd=Path(here).parent, capture_output=True, timeout=60)
        if (tmp_path / first).exists():
            with open_gguf(tmp_path / first) as f:
                assert len(f.tensors) in ((2, 9) if options.get("force") else (9,))
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr.decode()
        for leftover in tmp_path.iterdir():
            leftover.unlink()
    assert k >= 3 and len(f.tensors) == 9
