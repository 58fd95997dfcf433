"""Checkpoints of torchao: each class by its definition, and by the library's own values."""

import json

import numpy as np
import pytest
from quantmaker import E2M1, e4m3, halves, pairs
from test_formats import check

from ggq.converters import formats
from ggq.converters.convert import convert
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import FormatError, GGQError, ModelError
from ggq.gguf import open_gguf

MODULE = "model.layers.0.mlp.up_proj"
SETTINGS = {"quantization_config": {"quant_method": "torchao"}}


def write(path, kind, said, pieces):
    """Write ``pieces`` {name: (dtype, array)} of one weight with torchao's metadata."""
    header, start, blobs = {}, 0, []
    for name, (dtype, x) in pieces.items():
        blob = np.ascontiguousarray(x).tobytes()
        header[f"{MODULE}._weight_{name}"] = {
            **{"dtype": dtype, "shape": list(np.shape(x))},
            "data_offsets": [start, start + len(blob)],
        }
        start += len(blob)
        blobs.append(blob)
    told = {"_type": kind, "_data": said, "_tensor_data_names": list(pieces)}
    header["__metadata__"] = {f"{MODULE}.weight": json.dumps(told)}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def read(path):
    file = SafetensorsFile(path)
    found = formats.decoded(file.tensors, formats.quantization(SETTINGS), file.metadata)
    assert list(found) == [f"{MODULE}.weight"]
    return found[f"{MODULE}.weight"]


def made(rng, kind):
    """Return (attributes, pieces, values) of a weight of one class, by its definition."""
    rows, cols = 24, 64
    block = {"block_size": [1, 32]}
    scale, wide = halves(rng, (rows, 2))
    wide = wide.repeat(32, 1)
    q = rng.integers(-8, 8, (rows, cols)).astype(np.int8)
    if kind == "Int8Tensor":
        q = rng.integers(-128, 128, (rows, cols)).astype(np.int8)
        zero = rng.integers(-3, 4, (rows, 2)).astype(np.int8)
        pieces = {"qdata": ("I8", q), "scale": ("F16", scale), "zero_point": ("I8", zero)}
        pieces["act_quant_scale"] = "F32", np.ones((1, 1), np.float32)
        return block, pieces, (q.astype(float) - zero.repeat(32, 1)) * wide
    if kind == "IntxUnpackedToInt8Tensor":
        pieces = {"qdata": ("I8", q), "scale": ("F16", scale)}
        pieces["zero_point"] = "I8", np.zeros((rows, 2), np.int8)
        return block | {"target_dtype": {"_data": "int4"}}, pieces, q * wide
    if kind == "Int4Tensor":
        zero, shift = halves(rng, (rows, 2))
        packed = pairs(q.view(np.uint8) & 15)[1]
        pieces = {"qdata": ("U8", packed), "scale": ("F16", scale.T), "zero_point": ("F16", zero.T)}
        return block, pieces, q * wide + shift.repeat(32, 1)
    if kind == "Float8Tensor":
        byte, values = e4m3(rng, (rows, cols))
        each = np.exp2(rng.uniform(-6, -2, (rows, 1))).astype(np.float32)
        pieces = {"qdata": ("F8_E4M3", byte), "scale": ("F32", each)}
        return {"block_size": [1, cols]}, pieces, values * each.astype(float)
    codes = rng.integers(0, 16, (rows, cols))
    if kind == "MXTensor":
        power = rng.integers(110, 125, (rows, 2)).astype(np.uint8)
        pieces = {"qdata": pairs(codes), "scale": ("F8_E8M0", power)}
        return {}, pieces, E2M1[codes] * np.exp2(power - 127.0).repeat(32, 1) + 0.0
    byte, values = e4m3(rng, (rows, 4), positive=True)
    whole = np.float32(0.0625)
    pieces = {"qdata": pairs(codes), "scale": ("F8_E4M3", byte), "per_tensor_scale": ("F32", whole)}
    return {}, pieces, E2M1[codes] * values.repeat(16, 1) * 0.0625 + 0.0


KINDS = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Int4Tensor", "Float8Tensor", "MXTensor")


@pytest.mark.parametrize("kind", (*KINDS, "NVFP4Tensor"))
def test_each_class_by_its_definition(tmp_path, rng, kind):
    said, pieces, values = made(rng, kind)
    write(tmp_path / "m.safetensors", kind, said, pieces)
    tensor = read(tmp_path / "m.safetensors")
    check(tensor, values, 3e-6 if kind == "Int4Tensor" else 0.0)
    assert tensor.fits("Q4_0") == (kind == "IntxUnpackedToInt8Tensor")
    assert tensor.fits("Q4_1") == (kind in ("IntxUnpackedToInt8Tensor", "Int4Tensor"))
    assert tensor.fits("MXFP4") == (kind == "MXTensor")


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        ("Int4TilePackedTo4dTensor", {}, "is a Int4TilePackedTo4dTensor of torchao, which is not"),
        ("Int8Tensor", {"scale": None}, "has no model.layers.0.mlp.up_proj._weight_scale beside"),
        ("Int8Tensor", {"scale": ("F16", np.ones((24, 3), np.float16))}, "its weight needs"),
        ("Int8Tensor", {"block_size": [1, 48]}, "has blocks of [1, 48], not groups"),
        ("Int8Tensor", {"block_size": "x"}, "has blocks of 'x', not groups"),
        ("Int8Tensor", {"act_pre_scale": ("F16", np.ones(64, np.float16))}, "scales its inputs"),
        (
            "IntxUnpackedToInt8Tensor",
            {"target_dtype": {"_data": "int2"}},
            "codes that int2 has not",
        ),
        ("IntxUnpackedToInt8Tensor", {"target_dtype": {"_data": "uint4"}}, "codes of uint4"),
        ("MXTensor", {"is_swizzled_scales": True}, "scales in a GPU's order"),
        (
            "Int4Tensor",
            {"zero_point": None},
            "has no model.layers.0.mlp.up_proj._weight_zero_point",
        ),
        ("NVFP4Tensor", {"per_tensor_scale": ("F32", np.ones(2, np.float32))}, "not one number"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, rng, kind, changed, words):
    said, pieces, _ = made(rng, kind.replace("TilePackedTo4d", ""))
    for name, value in changed.items():
        if isinstance(value, tuple) or value is None:
            pieces[name] = value
        else:
            said = said | {name: value}
    pieces = {n: p for n, p in pieces.items() if p is not None}
    write(tmp_path / "m.safetensors", kind, said, pieces)
    with pytest.raises(GGQError) as error:
        read(tmp_path / "m.safetensors")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_without_metadata_nothing_is_guessed(tmp_path, rng):
    said, pieces, _ = made(rng, "Int8Tensor")
    write(tmp_path / "m.safetensors", "Int8Tensor", said, pieces)
    file = SafetensorsFile(tmp_path / "m.safetensors")
    for metadata in ({}, {f"{MODULE}.weight": "{"}, {f"{MODULE}.weight": "[]"}):
        with pytest.raises(FormatError, match="metadata says no class of torchao"):
            formats.decoded(file.tensors, formats.quantization(SETTINGS), metadata)


def configs():
    torch = pytest.importorskip("torch")
    q = pytest.importorskip("torchao.quantization", exc_type=ImportError)
    group = q.PerGroup(32)
    yield q.Int8WeightOnlyConfig(version=2)
    yield q.Int8WeightOnlyConfig(version=2, granularity=group)
    yield q.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=group)
    yield q.IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=group)
    yield q.Float8WeightOnlyConfig()


def test_the_librarys_own_values(tmp_path):
    """What torchao saves of a layer is read as torchao dequantizes it, to its bf16."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    for number, config in enumerate(configs()):
        from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
        from torchao.quantization import quantize_

        layer = torch.nn.Linear(64, 48, bias=False).to(torch.bfloat16)
        quantize_(layer, config)
        tensors, told = flatten_tensor_state_dict({f"{MODULE}.weight": layer.weight})
        save_file(tensors, tmp_path / f"{number}.safetensors", metadata=told)
        want = layer.weight.dequantize().float().numpy()
        got = read(tmp_path / f"{number}.safetensors").read(slice(None))
        np.testing.assert_allclose(got, want, rtol=2**-8, err_msg=str(config))


def test_a_folder_converts(tmp_path, rng):
    from hfmaker import make_hf

    folder = make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=24, num_hidden_layers=1)
    said, pieces, values = made(rng, "Int8Tensor")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | SETTINGS))
    write(tmp_path / "m.safetensors", "Int8Tensor", said, pieces)
    join(folder / "model.safetensors", tmp_path / "m.safetensors", f"{MODULE}.weight")
    convert(folder, tmp_path / "x.gguf", "F32")
    with open_gguf(tmp_path / "x.gguf") as file:
        assert file.metadata["ggq.source_quantization"] == "torchao"
        got = file.data("blk.0.ffn_up.weight").view("<f4")
        np.testing.assert_array_equal(got, values.astype(np.float32))


def join(path, more, without):
    """Put the tensors of another file into one, with its metadata, without a tensor."""
    headers, blobs = [], []
    for source in (path, more):
        data = source.read_bytes()
        size = int.from_bytes(data[:8], "little")
        headers.append(json.loads(data[8 : 8 + size]))
        blobs.append(data[8 + size :])
    made, start, body = {"__metadata__": headers[1]["__metadata__"]}, 0, b""
    for header, blob in zip(headers, blobs, strict=True):
        for name, info in header.items():
            if name in ("__metadata__", without):
                continue
            first, last = info["data_offsets"]
            made[name] = info | {"data_offsets": [start, start + last - first]}
            start += last - first
            body += blob[first:last]
    text = json.dumps(made).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_a_format_that_is_not_torchaos_is_refused():
    with pytest.raises(ModelError, match=r"only .*torchao"):
        formats.quantization({"quantization_config": {"quant_method": "quanto"}})
