"""BitNet's packed checkpoints: codes of -1, 0 and 1, four rows in a byte, kept by ternary types."""

import json

import numpy as np
import pytest
from hfmaker import make_hf
from quantmaker import load, save

from ggq import quants
from ggq.converters import formats
from ggq.converters.convert import convert
from ggq.errors import FormatError, ModelError
from ggq.gguf import open_gguf

NAME = "model.layers.0.mlp.up_proj"


def packed(codes):
    """Return the bytes of ternary codes, as transformers packs them."""
    quarters = np.split((codes + 1).astype(np.uint8), 4)
    return sum(q << 2 * i for i, q in enumerate(quarters)).astype(np.uint8)


def decoded(folder, codes, scale, **settings):
    scale = np.array([scale], np.float32)
    stored = load(
        folder,
        {f"{NAME}.weight": ("U8", packed(codes)), f"{NAME}.weight_scale": ("F32", scale)},
    )
    quantized = {"quantization_config": {"quant_method": "bitnet", **settings}}
    return formats.decoded(stored, formats.quantization(quantized))[f"{NAME}.weight"]


@pytest.mark.parametrize(("kind", "factor"), [("autobitlinear", 1.25), ("bitlinear", 0.8)])
def test_codes_and_scale_are_the_weight(kind, factor, tmp_path):
    codes = np.random.default_rng(1).integers(-1, 2, (16, 256))
    tensor = decoded(tmp_path, codes, 1.25, linear_class=kind)
    want = (codes * np.float32(factor)).astype(np.float32)
    np.testing.assert_allclose(tensor.read(slice(None)), want, rtol=1e-7)
    np.testing.assert_allclose(tensor.read(np.array([9, 2, 15])), want[[9, 2, 15]], rtol=1e-7)


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_types_keep_them_as_they_are(kind, tmp_path):
    codes = np.random.default_rng(2).integers(-1, 2, (8, 512))
    tensor = decoded(tmp_path, codes, 1.25, linear_class="autobitlinear")
    assert tensor.fits(kind) and not tensor.rounds(kind) and not tensor.fits("Q4_0")
    blocks = tensor.blocks(kind, slice(2, 7))
    np.testing.assert_array_equal(quants.get(kind).dequantize(blocks), codes[2:7] * 1.25)


def test_a_packed_checkpoint_converts_without_loss(tmp_path):
    folder = make_hf(tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    quantized = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantized}))
    from ggq.converters.safetensors import SafetensorsFile

    file = SafetensorsFile(folder / "model.safetensors")
    codes = np.random.default_rng(3).integers(-1, 2, (512, 256))
    made = {n: ("F32", t.read(slice(None)).reshape(t.shape)) for n, t in file.tensors.items()}
    made[f"{NAME}.weight"] = "U8", packed(codes)
    made[f"{NAME}.weight_scale"] = "F32", np.array([0.5], np.float32)
    save(folder, made)
    (path,) = convert(folder, tmp_path / "x.gguf", "TQ2_0")
    with open_gguf(path) as gguf:
        info = gguf.tensors["blk.0.ffn_up.weight"]
        got = quants.by_id(info.type_id).dequantize(gguf.data("blk.0.ffn_up.weight")[:])
    np.testing.assert_array_equal(got, codes * 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization_mode": "online"}, "'online': convert the packed"),
        ({"use_rms_norm": True}, "use_rms_norm"),
        ({"linear_class": "bitblas"}, "linear_class is 'bitblas'"),
    ],
)
def test_what_is_not_read_is_refused(settings, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        decoded(tmp_path, np.zeros((4, 256), int), 1.0, **settings)


def test_a_scale_of_nothing_is_refused(tmp_path):
    with pytest.raises(FormatError, match="scale 0"):
        decoded(tmp_path, np.zeros((4, 256), int), 0.0)
