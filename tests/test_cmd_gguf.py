"""The commands on GGUF files: info, verify, hash, split, merge, set-metadata."""

import json

import numpy as np
import pytest
from ggufmaker import make_tiny_llama

from ggq import cli
from ggq.errors import UsageError
from ggq.gguf import open_gguf, spec
from ggq.gguf.summary import kv_bytes_per_token, plain_value
from ggq.gguf.units import format_size, parse_size


@pytest.fixture
def model(tmp_path):
    return make_tiny_llama(tmp_path / "m.gguf", vocab="bpe", type_id=1)


@pytest.fixture
def ggq(capsys):
    """Run a command; return exit code, stdout and stderr."""

    def run(*args):
        code = cli.main([str(a) for a in args])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


def test_info_tells_the_essentials(ggq, model):
    code, out, _ = ggq("info", model, "--tensors")
    assert code == 0
    for words in (
        "llama.block_count",
        "F16",
        "21 tensors",
        "blk.1.ffn_down.weight",
        "KV cache per",
    ):
        assert words in out
    assert "problem" not in out


def test_info_json_is_complete(ggq, model):
    code, out, _ = ggq("info", model, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["problem"] is None and facts["tensors"] == len(facts["tensor_list"])
    assert facts["bytes"] == model.stat().st_size
    assert facts["metadata"]["llama.block_count"] == {"type": "u32", "value": 2}
    assert facts["metadata"]["tokenizer.ggml.tokens"]["value"]["length"] == 269
    assert sum(row["weights"] for row in facts["types"].values()) == facts["weights"]
    assert sum(row["share"] for row in facts["types"].values()) == pytest.approx(1)
    # 2 layers, 2 heads of 16 + 16, 2 bytes, 1024 tokens
    assert facts["kv_bytes_per_1k_context"]["f16"] == 2 * 2 * 32 * 2 * 1024


def test_cache_size_counts_heads_per_layer(tmp_path):
    keys = {"llama.attention.head_count_kv": ([1, 4], spec.U32), "llama.attention.value_length": 8}
    with open_gguf(make_tiny_llama(tmp_path / "m.gguf", metadata=keys)) as f:
        assert kv_bytes_per_token(f, "f32") == (1 + 4) * (16 + 8) * 4
        assert kv_bytes_per_token(f, "q8_0") == (1 + 4) * (16 + 8) * 34 / 32


def test_info_never_prints_control_characters(ggq, tmp_path):
    evil = "a\x1b]0;title\x07\r\x9b31mb\u202e"
    keys = {
        "general.name": evil,
        f"llama.{evil}": 1,
        "tokenizer.chat_template": f"one\n\ttwo {evil}",
        "tokenizer.chat_template.other": evil,
        "llama.words": [evil],
    }
    model = make_tiny_llama(tmp_path / "m.gguf", metadata=keys)
    for options in ((), ("--tensors",), ("--json",), ("--template",)):
        code, out, err = ggq("info", model, *options)
        assert code == 0 and not err
        assert all(c.isprintable() or c in "\n\t" for c in out)
    assert "\ttwo a\\x1b]0;title" in ggq("info", model, "--template")[1]


def test_info_shows_a_model_with_a_problem(ggq, tmp_path):
    model = make_tiny_llama(tmp_path / "m.gguf", metadata={"llama.block_count": 9})
    code, out, _ = ggq("info", model)
    assert code == 0 and "problem: " in out and "llama.block_count" in out and "KV cache" not in out


def test_info_of_files_without_tensors_or_keys(ggq, tmp_path):
    from ggufmaker import raw_gguf, string_pair

    bare, vocab = tmp_path / "bare.gguf", tmp_path / "v.gguf"
    bare.write_bytes(raw_gguf())
    vocab.write_bytes(raw_gguf((string_pair("general.architecture", "llama"),)))
    for path in (bare, vocab):
        for options in ((), ("--tensors",), ("--json",), ("--template",)):
            assert ggq("info", path, *options)[0] == 0


@pytest.mark.parametrize("name", ["info", "verify", "hash", "split", "merge", "set-metadata"])
def test_a_bad_file_is_one_line_and_exit_1(ggq, tmp_path, name):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUFGGUFGGUF")
    more = {
        "split": (tmp_path / "o", "--max-size", "1G"),
        "merge": (tmp_path / "o",),
        "set-metadata": (tmp_path / "o", "--set", "a=b"),
    }
    code, out, err = ggq(name, bad, *more.get(name, ()))
    assert (code, out) == (1, "") and err.count("\n") == 1 and "bad.gguf" in err
    assert [p.name for p in tmp_path.iterdir()] == ["bad.gguf"]


def test_verify(ggq, model):
    code, out, _ = ggq("verify", model, "--tensors")
    assert code == 0 and "all weights finite" in out
    data = bytearray(model.read_bytes())
    with open_gguf(model) as f:
        at = f.tensors["blk.1.attn_k.weight"].offset
    data[at + 6 : at + 8] = np.float16(np.inf).tobytes()
    model.write_bytes(data)
    assert ggq("verify", model)[0] == 0
    code, _, err = ggq("verify", model, "--tensors")
    assert code == 1 and "'blk.1.attn_k.weight'" in err


def test_verify_reports_bad_keys(ggq, tmp_path):
    keys = {"tokenizer.ggml.eos_token_id": 10**6}
    code, _, err = ggq("verify", make_tiny_llama(tmp_path / "m.gguf", metadata=keys))
    assert code == 1 and "eos_token_id" in err


def test_split_and_merge_are_inverse(ggq, model, tmp_path):
    code, planned, _ = ggq("split", model, tmp_path / "s", "--max-size", "100k", "--dry-run")
    assert code == 0 and not list(tmp_path.glob("s-*"))
    code, out, _ = ggq("split", model, tmp_path / "s", "--max-size", "100k")
    shards = sorted(tmp_path.glob("s-*.gguf"))
    assert code == 0 and out == planned and len(shards) == len(out.splitlines()) > 1
    code, _, _ = ggq("merge", shards[0], tmp_path / "again.gguf")
    assert code == 0 and (tmp_path / "again.gguf").read_bytes() == model.read_bytes()
    assert ggq("merge", shards[0], tmp_path / "again.gguf")[0] == 1  # exists
    assert ggq("split", model, tmp_path / "s")[0] == 1  # no limit given
    assert ggq("split", model, tmp_path / "t", "--max-tensors", "0")[0] == 2


def test_hash_ignores_splits_and_metadata(ggq, model, tmp_path):
    _, lines, _ = ggq("hash", model)
    manifest = tmp_path / "hashes"
    manifest.write_text(lines)
    ggq("split", model, tmp_path / "s", "--max-tensors", "5")
    first = min(tmp_path.glob("s-*"))
    assert len(lines.splitlines()) == 22
    assert ggq("hash", first, "--check", manifest)[0] == 0
    assert ggq("hash", model, "--no-layer")[1] == lines.splitlines()[-1] + "\n"
    manifest.write_text(lines.replace(lines.split()[1], "0" * 64))
    code, _, err = ggq("hash", model, "--check", manifest)
    assert code == 1 and "token_embd.weight" in err
    manifest.write_text("nothing\n")
    assert ggq("hash", model, "--check", manifest)[0] == 1


def test_set_metadata(ggq, model, tmp_path):
    text = tmp_path / "template.txt"
    text.write_text("{{ new }}")
    out = tmp_path / "out.gguf"
    settings = {
        "general.name": "Other",
        "llama.context_length": "512",
        "new.flag": "true",
        "new.count": "7",
        "new.ratio": "0.5",
        "new.text": "a=b:c",
        "new.byte:u8": "0x10",
        "new.list:[i16]": "[1, -2]",
        "tokenizer.chat_template": f"@{text}",
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    code, _, err = ggq("set-metadata", model, out, *options, "--remove", "general.file_type")
    assert code == 0, err
    with open_gguf(out) as f, open_gguf(model) as old:
        assert f.metadata["general.name"] == "Other" and "general.file_type" not in f.metadata
        assert f.value_type("llama.context_length") == spec.U32
        assert f.metadata["llama.context_length"] == 512
        assert f.metadata["new.flag"] is True and f.metadata["new.text"] == "a=b:c"
        assert (f.metadata["new.count"], f.metadata["new.ratio"]) == (7, 0.5)
        assert (f.metadata["new.byte"], f.value_type("new.byte")) == (16, spec.U8)
        assert f.metadata["new.list"].tolist() == [1, -2] and f.array_type("new.list") == spec.I16
        assert f.metadata["tokenizer.chat_template"] == "{{ new }}"
        assert all(f.data(n).tobytes() == old.data(n).tobytes() for n in old.tensors)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("noequals", "KEY=VALUE"),
        ("llama.block_count=x", "not u32"),
        ("llama.block_count=3", "blk.2"),
        ("tokenizer.ggml.eos_token_id=99999", "eos_token_id"),
        ("general.alignment=64", "layout"),
        ("split.count=2", "layout"),
        ("a:what=1", "unknown type"),
        ("a:[u8]=1", "JSON list"),
        ("a:[u8]=[300]", "'a'"),
        ("a=@/nonexistent/file", "nonexistent"),
    ],
)
def test_set_metadata_refuses(ggq, model, tmp_path, setting, words):
    before = model.read_bytes()
    code, _, err = ggq("set-metadata", model, "--force", "--set", setting)
    assert code == 1 and words in err and err.count("\n") == 1
    assert model.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_set_metadata_in_place_needs_force(ggq, model):
    assert ggq("set-metadata", model, "--set", "general.name=x")[0] == 1
    assert ggq("set-metadata", model, "--force", "--set", "general.name=x")[0] == 0
    assert ggq("set-metadata", model, "--force")[0] == 1
    with open_gguf(model) as f:
        assert f.metadata["general.name"] == "x"


@pytest.mark.parametrize(
    ("text", "size"),
    [("5", 5), ("500M", 500 * 10**6), ("4.5G", 45 * 10**8), ("2GiB", 2 << 30), ("1 kB", 1000)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


def test_sizes_as_text():
    assert [format_size(n) for n in (7, 1500, 98_362_432, 3.2e9)] == [
        "7 B",
        "1.5 kB",
        "98.4 MB",
        "3.2 GB",
    ]
    for bad in ("", "G", "-1G", "1X", "1iB", "0", "0.1"):
        with pytest.raises(UsageError):
            parse_size(bad)


def test_plain_values():
    assert plain_value(float("inf")) == "inf" and plain_value(np.arange(3)) == [0, 1, 2]
    assert plain_value(np.arange(9), 2) == {"length": 9, "first": [0, 1]}
