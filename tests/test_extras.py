"""Keys and tensors that no table knows: a warning where a file is loaded or quantized again."""

import numpy as np
import pytest
from hfmaker import make_hf

import ggq
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.gguf import GGUFWriter, open_gguf, spec

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
EXTRA_KEYS = {"llama.mystery": 7, "acme.note": "hello", "general.acme": "known namespace"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    work = tmp_path_factory.mktemp("extras")
    (path,) = convert(make_hf(work / "hf", **SMALL), work / "plain.gguf", "F32")
    return path


def with_extras(plain, path, names=("blk.0.ffn_mystery.weight",), keys=EXTRA_KEYS, arch=None):
    """Write ``plain`` again with more keys and tensors."""
    rows = np.ones((2, 32), np.float32)
    with GGUFWriter(path) as writer, open_gguf(plain) as source:
        writer.copy_metadata(source.metadata)
        for key, value in {**keys, **({"general.architecture": arch} if arch else {})}.items():
            writer.add(key, value)
        for t in source.tensors.values():
            writer.add_tensor(t.name, t.shape, t.type_id)
        for name in names:
            writer.add_tensor(name, rows.shape, spec.TYPE_IDS["F32"])
        writer.begin()
        for name in source.tensors:
            writer.write(name, source.data(name))
        for name in names:
            writer.write(name, rows.view(np.uint8))
    return path


def test_nothing_is_said_of_a_file_without_extras(plain, tmp_path):
    with ggq.load(plain) as model:
        assert model.warnings == []
    with prepare(plain, tmp_path / "x.gguf", "Q8_0") as job:
        assert job.warnings == []


def test_loading_warns_and_computes_the_same(plain, tmp_path):
    path = with_extras(plain, tmp_path / "x.gguf")
    with ggq.load(path, threads=1) as model, ggq.load(plain, threads=1) as original:
        assert model.warnings == [
            "keys llama.mystery, acme.note: unknown, not used",
            "tensor blk.0.ffn_mystery.weight: unknown, not used",
        ]
        np.testing.assert_array_equal(model.logits([1, 5, 9]), original.logits([1, 5, 9]))


def test_quantizing_warns_and_carries_them_over(plain, tmp_path):
    path = with_extras(plain, tmp_path / "x.gguf")
    with prepare(path, tmp_path / "q.gguf", "Q8_0") as job:
        assert job.warnings == [
            "keys llama.mystery, acme.note: unknown, carried over",
            "tensor blk.0.ffn_mystery.weight: unknown, carried over",
        ]
        job.run()
    with open_gguf(tmp_path / "q.gguf") as file:
        assert file.metadata["acme.note"] == "hello" and file.metadata["llama.mystery"] == 7
        assert spec.type_name(file.tensors["blk.0.ffn_mystery.weight"].type_id) == "Q8_0"


def test_long_lists_are_cut_and_names_escaped(plain, tmp_path):
    names = [f"x\x1b[2J{i}" for i in range(5)]
    path = with_extras(plain, tmp_path / "x.gguf", names, {})
    with ggq.load(path) as model:
        (line,) = model.warnings
    assert line.startswith("tensors x\\x1b[2J0, ") and line.endswith(
        " and 2 more: unknown, not used"
    )
    assert "\x1b" not in line


def test_of_an_unknown_architecture_only_foreign_keys_are_told(plain, tmp_path):
    with open_gguf(plain) as source:
        layers = {k.replace("llama.", "acme9."): source.metadata[k] for k in source.metadata}
    layers = {k: v for k, v in layers.items() if k.startswith("acme9.")}
    path = with_extras(plain, tmp_path / "y.gguf", keys={**layers, **EXTRA_KEYS}, arch="acme9")
    with prepare(path, tmp_path / "q.gguf", "Q8_0") as job:
        (line,) = job.warnings
    assert line.startswith("keys llama.") and line.endswith("unknown, carried over")
