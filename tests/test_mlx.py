"""Folders of MLX: every mode against values made from known codes, experts, what is refused."""

import json

import numpy as np
import pytest
from quantmaker import load, make_experts, make_pair, mlx, read_all, save
from test_formats import check, check_blocks

from ggq import models
from ggq.converters import formats
from ggq.converters.convert import convert
from ggq.converters.formats.base import Pieces
from ggq.converters.formats.mlx import FORMAT
from ggq.converters.prepare import prepare
from ggq.errors import FormatError, GGQError, ModelError
from ggq.gguf import open_gguf

AFFINE = {"group_size": 64, "bits": 4}
UP = "model.layers.0.mlp.up_proj"


def decode(folder, made, settings):
    stored = load(folder, {UP + suffix: piece for suffix, piece in made.pieces.items()})
    found = formats.decoded(stored, formats.quantization({"quantization": settings}))
    assert list(found) == [f"{UP}.weight"]
    return found[f"{UP}.weight"]


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_affine(tmp_path, rng, bits, group, dtype):
    made = mlx(rng, 24, 256, bits, group, dtype=dtype)
    tensor = decode(tmp_path, made, {"group_size": group, "bits": bits})
    check(tensor, made.values, 1e-6)  # one rounding more than the twin's
    for name in ("Q4_1", "Q5_1"):
        assert tensor.fits(name) == (bits <= int(name[1]))
    assert not any(tensor.fits(name) for name in ("Q4_0", "Q5_0", "Q8_0"))
    if dtype == "F32":
        assert not tensor.fits("Q5_1") or tensor.rounds("Q5_1")
        return
    exact = made.values.astype(np.float32) == made.values  # else blocks round as the reader does
    if exact.all():
        check_blocks(tensor, made, ("Q4_1", "Q5_1"))


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4", "mxfp8"])
def test_small_floats(tmp_path, rng, mode):
    made = mlx(rng, 24, 256, mode=mode)
    tensor = decode(tmp_path, made, {"group_size": 32, "bits": 4, "mode": mode})
    check(tensor, made.values)
    assert tensor.fits("MXFP4") == (mode == "mxfp4")
    check_blocks(tensor, made, ("MXFP4",))


def mlx_folder(tmp_path, quantized, settings):
    both, plain, made = make_pair(tmp_path, quantized, {})
    config = json.loads((both / "config.json").read_text())
    del config["quantization_config"]
    (both / "config.json").write_text(json.dumps(config | {"quantization": settings}))
    return both, plain, made


def mixed(rng, rows, cols):
    """Return a matrix of 4 bits, a wide one of 6 in smaller groups."""
    return mlx(rng, rows, cols, *((6, 32) if cols > 64 else (4, 64)))


def test_a_folder_converts_as_its_values_do(tmp_path):
    down = {"model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 6}, "lm_head": False}
    both, plain, _ = mlx_folder(tmp_path, mixed, AFFINE | {"mode": "affine"} | down)
    for file_type in ("F32", "Q4_1"):
        got, want = (tmp_path / f"{n}-{file_type}.gguf" for n in ("got", "want"))
        convert(both, got, file_type)
        convert(plain, want, "F32")
        with open_gguf(got) as a, open_gguf(want) as b:
            assert a.metadata["ggq.source_quantization"] == "mlx"
            for name in b.tensors:
                if file_type == "F32":
                    np.testing.assert_allclose(
                        a.data(name).view("f4"), b.data(name).view("f4"), 1e-6, err_msg=name
                    )
    with prepare(both, tmp_path / "x.gguf", "Q4_1") as job:
        kept = [n for n, t in job.tensors.items() if t.type_name == "Q4_1"]
    assert len(kept) == 6 and "blk.0.ffn_down.weight" not in kept


def test_experts_of_a_stack_are_taken_apart(tmp_path):
    both, plain = make_experts(tmp_path, lambda rng, r, c: mlx(rng, r, c, 4, 32), {})
    tensors, stacked = read_all(both), {}
    for name in [n for n in tensors if ".experts." in n]:
        before, _, rest = name.partition(".experts.")
        number, _, rest = rest.partition(".")
        stack = stacked.setdefault(f"{before}.switch_mlp.{rest}", {})
        stack[int(number)] = tensors.pop(name)
    for name, parts in stacked.items():
        tensors[name] = parts[0][0], np.stack([parts[i][1] for i in range(len(parts))])
    save(both, tensors)
    config = json.loads((plain / "config.json").read_text())
    settings = {"quantization": {"group_size": 32, "bits": 4}}
    (both / "config.json").write_text(json.dumps(config | settings))
    for source in (both, plain):
        convert(source, tmp_path / f"{source.name}.gguf", "F32")
    with open_gguf(tmp_path / "quantized.gguf") as a, open_gguf(tmp_path / "plain.gguf") as b:
        assert any("exps" in name for name in b.tensors)
        for name in b.tensors:
            np.testing.assert_allclose(
                a.data(name).view("f4"), b.data(name).view("f4"), 1e-6, err_msg=name
            )


def test_what_mlx_renames_reshapes_and_raises(tmp_path, rng):
    x = rng.standard_normal
    norm, conv = x(8).astype(np.float32), x((6, 4, 1)).astype(np.float32)
    experts = x((3, 8, 4)).astype(np.float32)
    stored = load(
        tmp_path,
        {
            "model.layers.0.linear_attn.conv1d.weight": ("F32", conv),
            "model.layers.0.input_layernorm.weight": ("F32", norm),
            "model.layers.0.linear_attn.norm.weight": ("F32", norm),
            "model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight": ("F32", experts),
        },
    )
    pieces = Pieces(stored)
    FORMAT.decode(pieces, AFFINE)
    found = pieces.tensors
    assert found["model.layers.0.linear_attn.conv1d.weight"].shape == (6, 1, 4)
    lowered = found["model.layers.0.input_layernorm.weight"]
    np.testing.assert_array_equal(lowered.read(slice(0, 1))[0], norm - np.float32(1))
    assert found["model.layers.0.linear_attn.norm.weight"].read(slice(0, 1))[0, 0] == norm[0]
    for i in range(3):
        one = found[f"model.layers.0.block_sparse_moe.experts.{i}.w3.weight"]
        np.testing.assert_array_equal(one.read(slice(2, 5)), experts[i, 2:5])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({".scales": None}, "has no model.layers.0.mlp.up_proj.scales beside it"),
        ({".biases": None}, "has no model.layers.0.mlp.up_proj.biases beside it"),
        ({".biases": ("F32", np.ones((64, 1), np.float32))}, "holds F32, not BF16"),
        ({".scales": ("BF16", np.ones((64, 2), np.uint16))}, "its weight needs (64, 1)"),
        ({".scales": ("U8", np.ones((64, 1), np.uint8))}, "holds U8, not"),
        ({".weight": ("U32", np.ones((64, 7), np.uint32))}, "no groups of 64 codes of 4 bits"),
        ({".weight": ("I32", np.ones((64, 8), np.int32))}, "holds I32, not U32"),
        ({".weight": ("U32", np.ones((2, 64, 8), np.uint32))}, "no matrix"),
    ],
)
def test_malformed_pieces_are_named(tmp_path, rng, changed, words):
    both, *_ = mlx_folder(tmp_path, lambda rng, r, c: mlx(rng, r, c), AFFINE)
    tensors = read_all(both)
    for suffix, piece in changed.items():
        tensors.pop(UP + suffix)
        if piece is not None:
            shape = [128 if n == 64 else n for n in piece[1].shape]
            tensors[UP + suffix] = piece[0], np.resize(piece[1], shape)
    save(both, tensors)
    with pytest.raises(GGQError) as error:
        prepare(both, tmp_path / "x.gguf", "F16")
    assert "up_proj" in str(error.value) and "\n" not in str(error.value)
    assert words.replace("(64, 1)", "(128, 1)") in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"group_size": 64, "bits": 7},
        {"group_size": 48, "bits": 4},
        {"group_size": "64", "bits": 4},
        {"group_size": 64, "bits": 4, "mode": "ternary"},
        {"group_size": 64, "bits": 4, "mode": ["affine"]},
        {"group_size": 64, "bits": 4, "lm_head": {"bits": 1}},
    ],
)
def test_settings_that_mlx_has_not(settings):
    with pytest.raises(ModelError, match=r"MLX .* is not supported, only"):
        formats.quantization({"quantization": settings})


def test_scales_that_config_json_is_silent_about(tmp_path, rng):
    both, *_ = mlx_folder(tmp_path, lambda rng, r, c: mlx(rng, r, c), AFFINE)
    config = json.loads((both / "config.json").read_text())
    del config["quantization"]
    (both / "config.json").write_text(json.dumps(config))
    with pytest.raises((FormatError, ModelError), match=r"U32, not floats|MLX"):
        prepare(both, tmp_path / "x.gguf", "F16")


def test_config_alone_says_mlx(tmp_path, capsys):
    from ggq.cli import main

    both, *_ = mlx_folder(tmp_path, lambda rng, r, c: mlx(rng, r, c), AFFINE)
    assert main(["check", str(both / "config.json")]) == 0
    assert "quantized already (mlx)" in capsys.readouterr().out
    assert models.for_hf(json.loads((both / "config.json").read_text())).name == "llama"
