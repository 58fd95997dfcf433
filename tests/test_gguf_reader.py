"""The GGUF reader on well-formed files: values, views, splits, agreement with the gguf package."""

import os

import numpy as np
import pytest
from ggufmaker import (
    array_pair,
    make_tiny_llama,
    pair,
    raw_gguf,
    string_pair,
    tensor_info,
    u32_pair,
)

from ggq.errors import FormatError, GGQError, UsageError
from ggq.gguf import GGUFWriter, StringArray, open_gguf, spec, validate_model

SCALARS = {
    "u8": (spec.U8, 255),
    "i8": (spec.I8, -128),
    "u16": (spec.U16, 65535),
    "i16": (spec.I16, -32768),
    "u32": (spec.U32, 2**32 - 1),
    "i32": (spec.I32, -(2**31)),
    "f32": (spec.F32, 0.5),
    "bool": (spec.BOOL, True),
    "str": (spec.STR, "héllo\n"),
    "u64": (spec.U64, 2**64 - 1),
    "i64": (spec.I64, -(2**63)),
    "f64": (spec.F64, 0.1),
}


@pytest.fixture
def sample(tmp_path):
    """A file with every value type, alone and in arrays, and one tensor."""
    path = tmp_path / "sample.gguf"
    with GGUFWriter(path) as w:
        for name, (type_id, value) in SCALARS.items():
            w.add(f"one.{name}", value, type_id)
            w.add(f"many.{name}", [value, value], type_id)
        w.add_tensor("w", (3, 2, 4), 0)
        w.begin()
        w.write("w", np.arange(24, dtype=np.float32).view(np.uint8).reshape(6, 16))
        w.finish()
    return path


def test_every_value_type_comes_back(sample):
    with open_gguf(sample) as f:
        for name, (type_id, value) in SCALARS.items():
            one, many = f.metadata[f"one.{name}"], f.metadata[f"many.{name}"]
            assert one == value and type(one) is type(value)
            assert f.value_type(f"one.{name}") == type_id and f.array_type(f"one.{name}") is None
            assert f.value_type(f"many.{name}") == spec.ARRAY
            assert f.array_type(f"many.{name}") == type_id
            if type_id == spec.STR:
                assert many.tolist() == [value.encode()] * 2
            else:
                np.testing.assert_array_equal(many, [value, value])
                assert many.flags.aligned and not many.flags.writeable


def test_gguf_package_reads_the_same(sample):
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(sample)
    with open_gguf(sample) as f:
        for key in f.metadata:
            theirs = reader.fields[key].contents()
            ours = f.metadata[key]
            ours = ours.texts() if isinstance(ours, StringArray) else ours
            np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))
        assert reader.tensors[0].shape.tolist() == [4, 2, 3]
        np.testing.assert_array_equal(reader.tensors[0].data.reshape(-1), np.arange(24.0))


def test_tensor_views_are_zero_copy_and_read_only(sample):
    with open_gguf(sample) as f:
        tensor, view = f.tensors["w"], f.data("w")
        assert (tensor.shape, tensor.nbytes, tensor.type_name) == ((3, 2, 4), 96, "F32")
        assert view.shape == (6, 16) and view.dtype == np.uint8
        assert np.shares_memory(view, f.shards[0].data)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0
        np.testing.assert_array_equal(view.view(np.float32).ravel(), np.arange(24))
        raw = sample.read_bytes()[tensor.offset : tensor.offset + tensor.nbytes]
        assert view.tobytes() == raw


def test_views_outlive_close(sample):
    f = open_gguf(sample)
    view = f.data("w")
    f.close()
    assert view.view(np.float32).sum() == np.arange(24).sum()


def test_without_mmap_gives_the_same_bytes(sample):
    with open_gguf(sample) as mapped, open_gguf(sample, use_mmap=False) as loaded:
        assert loaded.data("w").tobytes() == mapped.data("w").tobytes()
        with pytest.raises(ValueError, match="read-only"):
            loaded.data("w")[0] = 0


def test_string_array_is_a_lazy_sequence(tmp_path):
    path = tmp_path / "s.gguf"
    items = [b"", b"a", b"\xff\xfe", "é".encode(), b"", b"last"]
    with GGUFWriter(path) as w:
        w.add("s", items)
        w.begin()
    with open_gguf(path) as f:
        s = f.metadata["s"]
        assert list(s) == s.tolist() == items == [s[i] for i in range(len(s))]
        assert s[-1] == b"last" and s[-6] == b"" and s[1:4] == items[1:4] and s[::-1] == items[::-1]
        assert s.text(2) == "\ufffd\ufffd" and s.text(3) == "é"
        assert b"a" in s and s.index(b"last") == 5
        for bad in (6, -7):
            with pytest.raises(IndexError):
                s[bad]


def test_get_checks_types_and_names_the_key(sample):
    with open_gguf(sample) as f:
        assert f.get("one.u32", type=int) == 2**32 - 1
        assert f.get("one.u8", type=float) == 255.0
        assert f.get("absent") is None and f.get("absent", 7, int) == 7
        for key, kind in (
            ("one.f32", int),
            ("one.bool", int),
            ("one.u8", bool),
            ("one.str", "array"),
        ):
            with pytest.raises(FormatError, match=key):
                f.get(key, type=kind)
        with pytest.raises(FormatError, match=r"'absent' is missing"):
            f.require("absent")
        with pytest.raises(FormatError, match="no tensor 'x'"):
            f.data("x")


def test_version_2_is_read(tmp_path):
    path = tmp_path / "v2.gguf"
    path.write_bytes(
        raw_gguf((string_pair("a.b", "c"),), (tensor_info("t", (8,)),), bytes(32), version=2)
    )
    with open_gguf(path) as f:
        assert (f.version, f.metadata["a.b"], f.data("t").shape) == (2, "c", (1, 32))


def test_custom_alignment_moves_the_data(tmp_path):
    path = tmp_path / "a.gguf"
    infos = (tensor_info("a", (1,)), tensor_info("b", (1,), offset=256))
    data = bytes([1, 2, 3, 4]).ljust(256, b"\0") + bytes([5, 6, 7, 8])
    path.write_bytes(raw_gguf((u32_pair("general.alignment", 256),), infos, data, alignment=256))
    with open_gguf(path) as f:
        assert f.alignment == 256 and f.tensors["b"].offset == 512
        assert f.data("b").tolist() == [[5, 6, 7, 8]]


def test_last_tensor_may_lack_its_padding(tmp_path):
    path = tmp_path / "p.gguf"
    path.write_bytes(raw_gguf((), (tensor_info("a", (1,)),), b"\1\2\3\4"))
    with open_gguf(path) as f:
        assert f.data("a").tolist() == [[1, 2, 3, 4]]


def test_strings_across_read_chunks(tmp_path):
    """The header is read in chunks of 4 MiB; strings and their lengths may straddle the borders."""
    items = [bytes([65 + i % 26]) * (i % 97) for i in range(200_000)]
    path = tmp_path / "big.gguf"
    with GGUFWriter(path) as w:
        w.add("before", items, spec.STR)
        w.add("after", "end")
        w.begin()
    assert os.path.getsize(path) > 10 << 20
    with open_gguf(path) as f:
        assert f.metadata["before"].tolist() == items and f.metadata["after"] == "end"


def test_splits_are_followed(tmp_path):
    first = make_tiny_llama(tmp_path / "m.gguf", split_max_bytes=150_000)
    whole = make_tiny_llama(tmp_path / "whole.gguf")
    assert first.name.startswith("m-00001-of-0000")
    with open_gguf(first) as f, open_gguf(whole) as g:
        assert len(f.shards) > 2 and list(f.tensors) == list(g.tensors)
        assert all(f.data(n).tobytes() == g.data(n).tobytes() for n in g.tensors)
        assert validate_model(f) == []
    with open_gguf(first, follow_splits=False) as f:
        assert len(f.shards) == 1 and len(f.tensors) < len(g.tensors)


def test_splits_that_do_not_fit_together(tmp_path):
    first = make_tiny_llama(tmp_path / "m.gguf", split_max_bytes=150_000)
    shards = sorted(tmp_path.glob("m-*.gguf"))
    with pytest.raises(FormatError, match=r"shard 2 of .*; open .*00001-of"):
        open_gguf(shards[1])
    second = shards[1].read_bytes()
    shards[1].write_bytes(shards[2].read_bytes())
    with pytest.raises(FormatError, match=r"split.no"):
        open_gguf(first)
    shards[1].unlink()
    with pytest.raises(UsageError, match=r"00002-of.*No such file"):
        open_gguf(first)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "x.gguf").write_bytes(second)
    shards[1].symlink_to(outside / "x.gguf")
    with pytest.raises(FormatError, match="symbolic link"):
        open_gguf(first)


def test_splits_as_links_of_the_hugging_face_cache(tmp_path):
    make_tiny_llama(tmp_path / "m.gguf", split_max_bytes=150_000)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for shard in tmp_path.glob("m-*.gguf"):
        (snapshot / shard.name).symlink_to(shard)
    with open_gguf(min(snapshot.iterdir())) as f:
        assert len(f.shards) > 2


def test_a_file_that_changes_is_noticed(sample):
    with open_gguf(sample) as f:
        f.check_unchanged()
        os.truncate(sample, sample.stat().st_size - 1)
        with pytest.raises(FormatError, match="changed while it was open"):
            f.check_unchanged()


@pytest.mark.parametrize("name", ["nothing.gguf", ".", "nul\0byte"])
def test_what_is_no_file(tmp_path, name):
    with pytest.raises(GGQError, match=r"\S"):
        open_gguf(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        open_gguf(tmp_path / "pipe")


def test_real_vocabularies_agree_with_the_gguf_package(shared_dir):
    gguf = pytest.importorskip("gguf")
    path = shared_dir / "vocab" / "ggml-vocab-phi-3.gguf"
    theirs = gguf.GGUFReader(path)
    with open_gguf(path) as f:
        assert [k for k in theirs.fields if not k.startswith("GGUF.")] == list(f.metadata)
        for key in f.metadata:
            ours, other = f.metadata[key], theirs.fields[key].contents()
            ours = ours.texts() if isinstance(ours, StringArray) else ours
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(other))


def test_all_shared_vocabularies_are_valid(shared_dir):
    paths = sorted((shared_dir / "vocab").glob("*.gguf"))
    assert paths
    for path in paths:
        with open_gguf(path) as f:
            assert validate_model(f, vocab_only=True) == []


def test_warnings_name_what_is_unused(tmp_path):
    odd = {"tokenizer.ggml.padding_token_id": 99_999, "llama.block_count": 1}
    with open_gguf(make_tiny_llama(tmp_path / "m.gguf", metadata=odd)) as f:
        warnings = "\n".join(validate_model(f))
    assert "padding_token_id" in warnings and "beyond llama.block_count" in warnings


def test_bert_style_files_without_optional_keys_pass(tmp_path):
    path = tmp_path / "v.gguf"
    tokens = array_pair("tokenizer.ggml.tokens", spec.STR, 1, bytes([1, 0, 0, 0, 0, 0, 0, 0, 65]))
    keys = (
        string_pair("general.architecture", "bert"),
        string_pair("tokenizer.ggml.model", "bert"),
        pair("tokenizer.ggml.add_bos_token", spec.BOOL, b"\0"),
        tokens,
    )
    path.write_bytes(raw_gguf(keys))
    with open_gguf(path) as f:
        assert validate_model(f, vocab_only=True) == []
        with pytest.raises(FormatError, match="block_count"):
            validate_model(f)
