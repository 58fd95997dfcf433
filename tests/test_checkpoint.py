"""HF folders that lie: every size is checked before use, shard names stay inside the folder."""

import json

import numpy as np
import pytest
from hfmaker import LLAMA, make_hf, save, stored

from ggq.converters.checkpoint import folder as checkpoint
from ggq.converters.checkpoint.folder import Checkpoint, read_json
from ggq.converters.checkpoint.repository import fetch
from ggq.converters.safetensors import MAX_HEADER, SafetensorsFile, write_header
from ggq.errors import FormatError, ModelError, UsageError

GOOD = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def write(path, header, data=b"\0" * 24, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "not a JSON object"),
        (b"{", "not JSON"),
        (b"[" * 5000, "not JSON"),
        ({"a": 5}, "unknown type"),
        ({"a": {**GOOD, "dtype": "F31"}}, "unknown type"),
        ({"a": {**GOOD, "shape": [2, -3]}}, "bad shape"),
        ({"a": {**GOOD, "shape": [2, 3.0]}}, "bad shape"),
        ({"a": {**GOOD, "shape": [1] * 9}}, "bad shape"),
        ({"a": {**GOOD, "shape": [2, True]}}, "bad shape"),
        ({"a": {**GOOD, "shape": [1 << 61, 1 << 61]}}, "does not hold shape"),
        ({"a": {**GOOD, "data_offsets": [0, 20]}}, "does not hold shape"),
        ({"a": {**GOOD, "data_offsets": [0, 24, 30]}}, "does not hold shape"),
        ({"a": {**GOOD, "data_offsets": [8, 32]}}, "leaves a gap or overlaps"),
        ({"a": GOOD, "b": GOOD}, "leaves a gap or overlaps"),
        ({"a": {**GOOD, "shape": [1, 3], "data_offsets": [0, 12]}}, "holds .* bytes, the header"),
        ({"\x1b[31m": {**GOOD, "dtype": "?"}}, r"tensor \\x1b\[31m"),
    ],
)
def test_bad_headers_end_in_one_line(tmp_path, header, message):
    with pytest.raises(FormatError, match=message) as caught:
        SafetensorsFile(write(tmp_path / "m.safetensors", header))
    assert "\n" not in str(caught.value) and "m.safetensors" in str(caught.value)


@pytest.mark.parametrize("length", [1 << 63, MAX_HEADER + 1, 1000])
def test_header_lengths_are_checked_before_reading(tmp_path, length):
    with pytest.raises(FormatError, match=f"header of {length} bytes"):
        SafetensorsFile(write(tmp_path / "m.safetensors", {"a": GOOD}, length=length))
    (tmp_path / "short.safetensors").write_bytes(b"abc")
    with pytest.raises(FormatError, match="header of"):
        SafetensorsFile(tmp_path / "short.safetensors")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rows_are_read_exactly(tmp_path, rng, dtype):
    values = (rng.standard_normal((7, 5)) * 10.0 ** rng.integers(-30, 4, (7, 5))).astype(np.float32)
    save(tmp_path, {"x": values, "v": values[0]}, dtype)
    file = SafetensorsFile(tmp_path / "model.safetensors")
    raw = np.frombuffer(stored(values, dtype), "<u4" if dtype == "F32" else "<u2").reshape(7, 5)
    if dtype == "BF16":
        want = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        want = raw.view("<f4" if dtype == "F32" else "<f2").astype(np.float32)
    np.testing.assert_array_equal(file.tensors["x"].read(slice(2, 6)), want[2:6])
    np.testing.assert_array_equal(file.tensors["x"].read(np.array([6, 0, 3])), want[[6, 0, 3]])
    np.testing.assert_array_equal(file.tensors["v"].read(slice(0, 1)), want[:1])
    file.close()


def test_what_the_safetensors_package_writes_is_read(tmp_path, rng):
    numpy_api = pytest.importorskip("safetensors.numpy")
    values = {"a": rng.standard_normal((3, 4)).astype(np.float16), "i": np.arange(3)}
    numpy_api.save_file(values, tmp_path / "m.safetensors", metadata={"format": "np"})
    file = SafetensorsFile(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(file.tensors["a"].read(slice(None)), values["a"])
    with pytest.raises(FormatError, match="tensor i holds I64, not floats"):
        file.tensors["i"].read(slice(None))
    (tmp_path / "ours.safetensors").write_bytes(
        write_header({"a": ("F32", (1, 2))}) + np.array([1, 2], "<f4").tobytes()
    )
    loaded = numpy_api.load_file(tmp_path / "ours.safetensors")
    np.testing.assert_array_equal(loaded["a"], [[1, 2]])


@pytest.mark.parametrize(
    "name", ["../up.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "a\\b", "", 7, None]
)
def test_shard_names_stay_in_the_folder(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    index = {"weight_map": {"model.norm.weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="is not a plain file name"):
        Checkpoint(tmp_path)


def test_folders_without_usable_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"no safetensors file$"):
        Checkpoint(tmp_path)
    for name in ("a", "b"):
        write(tmp_path / f"{name}.safetensors", {"x": GOOD})
    with pytest.raises(FormatError, match="2 shards and no index"):
        Checkpoint(tmp_path)


def test_json_files_are_objects_of_bounded_size(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    assert read_json(path) == {}
    with pytest.raises(FormatError, match="no such file"):
        read_json(path, required=True)
    for text, message in (
        ("[1]", "not a JSON object"),
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
    ):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(FormatError, match=message):
            read_json(path)
    monkeypatch.setattr(checkpoint, "MAX_JSON", 10)
    path.write_text('{"a": "0123456789"}')
    with pytest.raises(FormatError, match="larger than 10"):
        read_json(path)


def test_repository_ids_are_checked_before_the_network():
    for text in ("../../x", "a/b/c", "no-slash", "a b/c"):
        with pytest.raises(UsageError, match="nor a repository id"):
            fetch(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {"quant_method": "hqq"}}, "method 'hqq' is not supported"),
        ({"architectures": ["RwkvForCausalLM"]}, "'RwkvForCausalLM' is not supported"),
        ({"num_hidden_layers": None}, "config.json has no num_hidden_layers"),
    ],
)
def test_what_cannot_be_converted_is_not_downloaded(tmp_path, monkeypatch, change, message):
    hub = pytest.importorskip("huggingface_hub")
    folder = make_hf(tmp_path, tokenizer=None)
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo, name, **_: str(folder / name))
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **_: str(folder))
    assert fetch("someone/some-model") == folder
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **_: pytest.fail("downloaded"))
    with pytest.raises(ModelError, match=message):
        fetch("someone/some-model")


def test_a_download_that_fails_is_one_line(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def fail(repo, name, **_):
        raise OSError("no network\nmore")

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(UsageError, match=r"^someone/some-awq: download failed: no network$"):
        fetch("someone/some-awq")
