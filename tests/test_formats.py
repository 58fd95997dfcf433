"""Pre-quantized checkpoints: each format against values made from known codes and scales."""

import numpy as np
import pytest
from modeloptmaker import modelopt_fp4
from quantmaker import (
    AWQ,
    BNB,
    CT,
    FP8,
    GPTQ,
    Made,
    awq,
    fp8,
    gptq,
    llm_int8,
    load,
    make_gpt_oss,
    mxfp4,
    nibbles,
    nvfp4,
    packed_integers,
    read_all,
    stream,
    stretched,
    whole_bytes,
)

from ggq import quants
from ggq.converters import formats
from ggq.converters.formats.floats import table
from ggq.errors import FormatError


def packed_settings(bits):
    weights = {"num_bits": bits, "type": "int", "strategy": "group"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return CT | {"format": "pack-quantized", "config_groups": groups}


def listed(block):
    """Return a block as config.json has it; rows have none."""
    return list(block) if block and all(block) else None


def bf16(stored):
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def decode(folder, made, settings, module="model.layers.0.mlp.up_proj"):
    """Return the one tensor that the pieces make, checking that none is left."""
    stored = load(folder, {module + suffix: piece for suffix, piece in made.pieces.items()})
    found = formats.decoded(stored, formats.quantization({"quantization_config": settings}))
    assert list(found) == [f"{module}.weight"]
    return found[f"{module}.weight"]


def check(tensor, values, tolerance=0.0):
    """Hold every way to read rows against the values in float64."""
    want = values.astype(np.float32)
    some = np.array([5, 0, 7, 7, 3])
    assert tensor.shape == want.shape
    for rows in (slice(None), slice(3, 11), some, slice(0, 1)):
        np.testing.assert_allclose(tensor.read(rows), want[rows], rtol=tolerance, atol=0)
    np.testing.assert_allclose(
        tensor.read((slice(2, 9), slice(1, 8, 3))), want[2:9, 1:8:3], rtol=tolerance, atol=0
    )


def check_blocks(tensor, made, types=("Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q5_1")):
    """Types that lose nothing hold the values exactly, those with a minimum to its rounding."""
    values = made.values.astype(np.float32)
    for name in types:
        if not tensor.fits(name):
            assert name not in made.exact
            continue
        rows = np.array([9, 2, 4])
        got = quants.get(name).dequantize(tensor.blocks(name, rows))
        if name in made.exact:
            assert not tensor.rounds(name)
        if not tensor.rounds(name):
            np.testing.assert_array_equal(got, values[rows])
        else:
            np.testing.assert_allclose(got, values[rows], atol=2**-11 * np.abs(values).max())


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("sym", [False, True], ids=["asym", "sym"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(
    ("group", "act_order"), [(32, False), (64, False), (-1, False), (32, True), (16, False)]
)
def test_gptq(tmp_path, rng, bits, sym, v2, group, act_order):
    made = gptq(rng, 32, 128, bits, group, sym, act_order, v2)
    settings = GPTQ | {"checkpoint_format": "gptq_v2" if v2 else "gptq"}
    tensor = decode(tmp_path, made, settings)
    check(tensor, made.values)
    check_blocks(tensor, made)
    for name in made.exact:
        assert tensor.fits(name)


def test_gptq_without_g_idx_takes_the_group_of_the_config(tmp_path, rng):
    made = gptq(rng, 32, 96, group=32)
    del made.pieces[".g_idx"]
    check(decode(tmp_path, made, GPTQ), made.values)
    with pytest.raises(FormatError, match=r"up_proj\.qweight has 96 inputs in groups of 64, and"):
        decode(tmp_path, made, GPTQ | {"group_size": 64})


def test_gptq_has_settings_per_module(tmp_path, rng):
    made = gptq(rng, 32, 96, bits=8, group=48)
    check(decode(tmp_path, made, GPTQ | {"dynamic": {"+:.*up": {"bits": 8}}}), made.values)


@pytest.mark.parametrize("group", [32, 128, 16])
def test_awq(tmp_path, rng, group):
    made = awq(rng, 32, 128, group)
    tensor = decode(tmp_path, made, AWQ)
    check(tensor, made.values)
    assert tensor.fits("Q4_1") == (group % 32 == 0)
    check_blocks(tensor, made, ("Q4_1", "Q5_1") if group == 16 else ("Q4_1", "Q5_0", "Q8_0"))


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("block", [(48, 48), (16, 128), (1, 0), None], ids=str)
def test_fp8(tmp_path, rng, block, dtype):
    made = fp8(rng, 80, 128, block, dtype=dtype, extra=(".activation_scale",))
    check(decode(tmp_path, made, FP8 | {"weight_block_size": listed(block)}), made.values)


def test_fp8_of_other_makers(tmp_path, rng):
    made = fp8(rng, 80, 128, None, ".weight_scale", extra=(".input_scale",))
    check(decode(tmp_path, made, {"quant_method": "fp8"}), made.values)
    made = fp8(rng, 80, 128, (1, 0), ".weight_scale")
    check(decode(tmp_path, made, {"quant_method": "fbgemm_fp8"}), made.values)


def test_fp8_scales_may_be_powers_of_two(tmp_path, rng):
    made = fp8(rng, 80, 128, (40, 32))
    powers = rng.integers(100, 140, (2, 4)).astype(np.uint8)
    scale = made.pieces[".weight_scale_inv"][1].astype(float)
    values = made.values / stretched(scale, (40, 32), (80, 128))
    values = values * stretched(np.exp2(powers - 127.0), (40, 32), (80, 128))
    made.pieces[".weight_scale_inv"] = ("F8_E8M0", powers)
    check(decode(tmp_path, made, FP8 | {"weight_block_size": [40, 32]}), values, 1e-7)


def test_small_floats_are_torchs():
    torch = pytest.importorskip("torch")
    byte = torch.arange(256, dtype=torch.uint8)
    for name, dtype in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        want = byte.view(dtype).float().numpy()
        np.testing.assert_array_equal(table(name), want)
    np.testing.assert_array_equal(
        table("F8_E8M0"), byte.view(torch.float8_e8m0fnu).double().float().numpy()
    )


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(("group", "order"), [(32, False), (-1, False), (16, False), (64, True)])
@pytest.mark.parametrize(("bits", "sym"), [(4, True), (4, False), (8, True), (8, False), (3, True)])
def test_pack_quantized(tmp_path, rng, bits, sym, group, order, dtype):
    made = packed_integers(rng, 40, 128, bits, group, sym, dtype, order)
    tensor = decode(tmp_path, made, packed_settings(bits))
    check(tensor, made.values)
    check_blocks(tensor, made)
    assert all(tensor.fits(name) for name in made.exact)


def test_pack_quantized_of_older_versions_leaves_bits_unused(tmp_path, rng):
    made = packed_integers(rng, 40, 128, bits=3)
    codes = rng.integers(0, 8, (40, 128))
    scale = bf16(made.pieces[".weight_scale"][1]).repeat(32, 1)
    words = [np.concatenate([stream(r[i : i + 10], 3) for i in range(0, 128, 10)]) for r in codes]
    made.pieces[".weight_packed"] = ("I32", np.array(words).view(np.int32))
    check(decode(tmp_path, made, packed_settings(3)), (codes - 4) * scale)


@pytest.mark.parametrize("group", [-1, 32, 48])
@pytest.mark.parametrize("sym", [True, False])
def test_int_quantized(tmp_path, rng, sym, group):
    made = whole_bytes(rng, 40, 96, group, sym)
    tensor = decode(tmp_path, made, CT | {"format": "int-quantized"})
    check(tensor, made.values)
    if group != 48:
        check_blocks(tensor, made)


@pytest.mark.parametrize("block", [(48, 48), (1, 0), None], ids=str)
def test_float_quantized(tmp_path, rng, block):
    made = fp8(rng, 80, 128, block, ".weight_scale", "BF16", extra=(".input_scale",))
    weights = {"num_bits": 8, "type": "float", "block_structure": listed(block)}
    groups = {"config_groups": {"group_0": {"weights": weights}}}
    check(decode(tmp_path, made, CT | {"format": "float-quantized"} | groups), made.values)


def test_mxfp4_keeps_its_blocks(tmp_path, rng):
    made = mxfp4(rng, 40, 96)
    tensor = decode(tmp_path, made, CT | {"format": "mxfp4-pack-quantized"})
    assert tensor.dtype == "MXFP4"
    check(tensor, made.values)
    check_blocks(tensor, made, ("MXFP4", "Q8_0"))
    made.pieces[".weight_scale"][1][3, 1] = 255
    tensor = decode(tmp_path, made, CT)
    with pytest.raises(FormatError, match=r"up_proj\.weight holds NaN"):
        tensor.blocks("MXFP4", slice(0, 8))


@pytest.mark.parametrize("nested", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(("cols", "block"), [(128, 64), (96, 64), (32, 64), (64, 256)])
def test_bitsandbytes_four_bits(tmp_path, rng, cols, block, kind, nested):
    made = nibbles(rng, 40, cols, kind, block, nested)
    check(decode(tmp_path, made, BNB), made.values)


def test_bitsandbytes_stores_bytes_as_other_types(tmp_path, rng):
    made = nibbles(rng, 40, 128)
    made.pieces[".weight"] = ("BF16", made.pieces[".weight"][1].reshape(-1).view(np.uint16))
    check(decode(tmp_path, made, BNB), made.values)


def test_llm_int8_keeps_every_column(tmp_path, rng):
    made = llm_int8(rng, 40, 128)
    tensor = decode(tmp_path, made, BNB)
    check(tensor, made.values)
    assert tensor.fits("Q8_0") and tensor.rounds("Q8_0")
    check_blocks(tensor, made)


def test_auto_round_is_gptq_or_awq(tmp_path, rng):
    settings = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "extra_config": {}}
    for maker, name in ((gptq, "auto_round:auto_gptq"), (awq, "auto_round:auto_awq")):
        made = maker(rng, 32, 128)
        check(decode(tmp_path, made, settings | {"packing_format": name}), made.values)


def test_modelopt(tmp_path, rng):
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    made = modelopt_fp4(rng, 40, 96)
    check(decode(tmp_path, made, settings), made.values)
    for block in (None, (128, 128), (1, 0)):
        made = fp8(rng, 200, 160, block, ".weight_scale", extra=(".input_scale", ".k_scale"))
        check(decode(tmp_path, made, settings | {"quant_algo": "FP8"}), made.values)


def test_nvfp4(tmp_path, rng):
    made = nvfp4(rng, 40, 96)
    check(decode(tmp_path, made, CT | {"format": "nvfp4-pack-quantized"}), made.values)


# --- against the libraries themselves ---


@pytest.mark.parametrize(
    ("maker", "weights", "kind"),
    [
        (packed_integers, {"num_bits": 4, "group_size": 32, "strategy": "group"}, "pack-quantized"),
        (
            lambda *a: packed_integers(*a, bits=3, sym=False, dtype="F32"),
            {"num_bits": 3, "group_size": 32, "strategy": "group", "symmetric": False},
            "pack-quantized",
        ),
        (
            lambda *a: whole_bytes(*a, dtype="F32"),
            {"num_bits": 8, "strategy": "channel"},
            "int-quantized",
        ),
        (
            lambda *a: fp8(*a, (16, 32), ".weight_scale"),
            {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 32]},
            "float-quantized",
        ),
        (
            mxfp4,
            {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32},
            "mxfp4-pack-quantized",
        ),
        (
            nvfp4,
            {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
            "nvfp4-pack-quantized",
        ),
    ],
    ids=["int4", "int3-asym", "int8", "fp8-block", "mxfp4", "nvfp4"],
)
def test_compressed_tensors_reads_the_same(tmp_path, rng, maker, weights, kind):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    assert library
    made = maker(rng, 64, 128)
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    tensor = decode(tmp_path, made, CT | {"format": kind, "config_groups": groups})
    views = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}
    state = {}
    for suffix, (dtype, array) in made.pieces.items():
        piece = torch.from_numpy(np.ascontiguousarray(array).copy())
        state[suffix[1:]] = piece.view(views[dtype]) if dtype in views else piece
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    found = BaseCompressor.get_value_from_registry(kind).decompress(state, scheme)["weight"]
    want = found.to(torch.float32).numpy()  # rounded to the type of its scales
    rounding = {torch.bfloat16: 2**-8, torch.float32: 1e-6}[found.dtype]
    np.testing.assert_allclose(tensor.read(slice(None)), want, rtol=rounding)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_writes_what_is_read(tmp_path, kind, nested):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes").functional
    weight = torch.linspace(-3, 3, 48 * 192).sin().reshape(48, 192)
    packed, state = functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=nested, quant_type=kind
    )
    pieces = {".weight." + n: v for n, v in state.as_dict(packed=True).items()}
    dtypes = {torch.uint8: "U8", torch.float32: "F32"}
    pieces = {n: (dtypes[v.dtype], v.numpy()) for n, v in (pieces | {".weight": packed}).items()}
    tensor = decode(tmp_path, Made(pieces, None), BNB)
    want = functional.dequantize_4bit(packed, state).numpy()
    np.testing.assert_allclose(tensor.read(slice(None)), want, rtol=1e-6)


def test_bitsandbytes_writes_the_int8_that_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("bitsandbytes").functional
    weight = torch.linspace(-3, 3, 48 * 160).sin().reshape(48, 160).half()
    weight[:, 7] *= 40  # an outlier column
    codes, largest, _ = functional.int8_vectorwise_quant(weight)
    pieces = {".weight": ("I8", codes.numpy()), ".SCB": ("F32", largest.numpy())}
    tensor = decode(tmp_path, Made(pieces, None), BNB)
    want = functional.int8_vectorwise_dequant(codes, largest).numpy()
    np.testing.assert_allclose(tensor.read(slice(None)), want, rtol=1e-6)
    np.testing.assert_allclose(tensor.read(slice(None))[:, 7], weight[:, 7].numpy(), rtol=0.01)


def test_transformers_unpacks_gpt_oss_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("transformers.integrations.mxfp4")
    mixed, plain = map(read_all, make_gpt_oss(tmp_path))
    names = [n.removesuffix("_blocks") for n in mixed if n.endswith("_blocks")]
    assert len(names) == 2
    for name in names:
        blocks, scales = (torch.from_numpy(mixed[name + s][1]) for s in ("_blocks", "_scales"))
        found = library.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        np.testing.assert_array_equal(found.numpy(), plain[name][1])
