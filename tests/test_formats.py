"""Pre-quantized checkpoints: each format against values made from known codes and scales."""

import numpy as np
import pytest
from quantmaker import awq, gptq, load, make_pair, read_all, save

from ggq import quants
from ggq.converters import formats
from ggq.converters.convert import convert, prepare
from ggq.errors import FormatError, GGQError, ModelError
from ggq.gguf import open_gguf

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM"}


def decode(folder, made, settings, module="model.layers.0.mlp.up_proj"):
    """Return the one tensor that the pieces make, checking that none is left."""
    stored = load(folder, {module + suffix: piece for suffix, piece in made.pieces.items()})
    found, method = formats.decoded(stored, {"quantization_config": settings})
    assert method == settings["quant_method"]
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


# --- whole folders ---

FOLDERS = {
    "gptq": (lambda rng, r, c: gptq(rng, r, c), GPTQ),
    "gptq-sym": (lambda rng, r, c: gptq(rng, r, c, sym=True), GPTQ),
    "gptq-act-order": (lambda rng, r, c: gptq(rng, r, c, bits=3, act_order=True), GPTQ),
    "awq": (awq, AWQ),
}


@pytest.mark.parametrize("name", list(FOLDERS))
def test_a_folder_converts_as_its_values_do(tmp_path, name):
    quantized, plain, made = make_pair(tmp_path, *FOLDERS[name])
    for file_type in ("F32", "Q8_0", "Q4_0"):
        got, want, source = (tmp_path / f"{n}-{file_type}.gguf" for n in ("got", "want", "source"))
        convert(quantized, got, file_type)
        convert(plain, want, file_type)
        convert(plain, source, "F32")
        with open_gguf(got) as a, open_gguf(want) as b, open_gguf(source) as c:
            assert a.metadata["ggq.source_quantization"] == FOLDERS[name][1]["quant_method"]
            compare_files(a, b, c, made)


def compare_files(got, want, source, made):
    """Bytes are those that the values give, or blocks that hold exactly these values."""
    assert list(got.tensors) == list(want.tensors)
    exact = frozenset.intersection(*(m.exact for m in made.values()))
    for name, tensor in got.tensors.items():
        kind = quants.by_id(tensor.type_id)
        assert tensor.type_id == want.tensors[name].type_id
        data = got.data(name)
        if kind.name in exact and name.startswith("blk.") and len(tensor.shape) == 2:
            values = source.data(name).view(np.float32)
            np.testing.assert_array_equal(kind.dequantize(data), values, err_msg=name)
        else:
            np.testing.assert_array_equal(data, want.data(name), err_msg=name)


def test_rounded_minimums_are_told(tmp_path):
    quantized, *_ = make_pair(tmp_path, *FOLDERS["awq"])
    with prepare(quantized, tmp_path / "x.gguf", "Q4_1") as job:
        assert job.tensors["blk.0.attn_q.weight"].type_name == "Q4_1"
        (note,) = [w for w in job.warnings if "half-precision" in w]
    assert "of 7 tensors are kept as they are" in note and note.endswith(
        "blk.0.attn_k.weight in Q4_1"
    )
    with prepare(quantized, tmp_path / "x.gguf", "Q8_0") as job:
        assert not [w for w in job.warnings if "half-precision" in w]
        assert job.tensors["blk.0.attn_q.weight"].type_name == "Q8_0"


# --- what is malformed ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "config.json: quantization_config is not an object"),
        ({}, "config.json: quantization method None is not supported, only awq"),
        ({"quant_method": ["gptq"]}, r"quantization method \['gptq'\] is not supported"),
        ({"quant_method": "aqlm\x1b"}, r"quantization method 'aqlm\\x1b' is not supported"),
        (GPTQ | {"checkpoint_format": "marlin"}, "GPTQ checkpoint_format 'marlin' is not"),
        (GPTQ | {"is_marlin_format": True}, "GPTQ checkpoint_format 'marlin' is not"),
        (GPTQ | {"group_size": "big"}, "quantization_config.group_size is 'big', no number"),
        (AWQ | {"version": "gemv"}, "AWQ gemv with 4 bits is not supported, only gemm with 4"),
        (AWQ | {"bits": 3}, "AWQ gemm with 3 bits is not supported"),
    ],
)
def test_methods_that_are_not_known_are_named(settings, message):
    with pytest.raises(GGQError, match=message):
        formats.decoded({}, {"quantization_config": settings})


def without(suffix):
    return lambda pieces: pieces.pop(suffix)


def changed(suffix, dtype, array):
    return lambda pieces: pieces.update({suffix: (dtype, array)})


@pytest.mark.parametrize(
    ("maker", "settings", "damage", "message"),
    [
        (gptq, GPTQ, without(".scales"), r"m\.qweight has no m\.scales beside it"),
        (gptq, GPTQ, without(".qzeros"), r"m\.qweight has no m\.qzeros beside it"),
        (gptq, GPTQ, changed(".qweight", "F32", np.ones((8, 32), "f4")), "holds F32, not I32"),
        (
            gptq,
            GPTQ,
            changed(".qweight", "I32", np.ones(8, "i4")),
            r"m\.qweight or its scales are no matrix",
        ),
        (gptq, GPTQ, changed(".qweight", "I32", np.ones((8, 24), "i4")), r"needs \(8, 32\)"),
        (gptq, GPTQ, changed(".qzeros", "I32", np.ones((2, 5), "i4")), "5 bits, GPTQ has"),
        (gptq, GPTQ, changed(".qzeros", "I32", np.ones((1, 4), "i4")), r"needs \(2, 4\)"),
        (gptq, GPTQ, changed(".g_idx", "I32", np.full(64, 2, "i4")), "outside the 2 groups"),
        (gptq, GPTQ, changed(".g_idx", "I32", np.full(64, -1, "i4")), "outside the 2 groups"),
        (gptq, GPTQ, changed(".weight", "F32", np.ones((32, 64), "f4")), "both quantized and plai"),
        (awq, AWQ, without(".qzeros"), r"m\.qweight has no m\.qzeros beside it"),
        (awq, AWQ, changed(".scales", "F16", np.ones((3, 32), "f2")), r"needs \(3, 4\)"),
        (awq, AWQ, changed(".scales", "F16", np.ones((2, 31), "f2")), r"needs \(2, 32\)"),
    ],
)
def test_malformed_pieces_are_named(tmp_path, rng, maker, settings, damage, message):
    made = maker(rng, 32, 64)
    damage(made.pieces)
    stored = load(tmp_path, {"m" + suffix: piece for suffix, piece in made.pieces.items()})
    with pytest.raises(GGQError, match=message):
        formats.decoded(stored, {"quantization_config": settings})


def test_a_piece_of_no_weight_is_left_for_the_table_to_refuse(tmp_path):
    quantized, *_ = make_pair(tmp_path, *FOLDERS["awq"])
    tensors = read_all(quantized)
    tensors["model.layers.0.mlp.other.qzeros"] = ("I32", np.zeros((1, 1), np.int32))
    save(quantized, tensors)
    with pytest.raises(ModelError, match=r"mlp\.other\.qzeros of the checkpoint is not one that"):
        prepare(quantized, tmp_path / "x.gguf", "F32")
    assert not list(tmp_path.glob("*.gguf*"))
