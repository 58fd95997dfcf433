"""Folders of pre-quantized weights convert as their values do; what is malformed is named."""

import itertools
import json

import numpy as np
import pytest
from modeloptmaker import modelopt_fp4
from quantmaker import (
    AWQ,
    BNB,
    CT,
    FP8,
    GPTQ,
    NUMPY,
    awq,
    fp8,
    gptq,
    llm_int8,
    load,
    make_experts,
    make_gpt_oss,
    make_pair,
    mxfp4,
    nibbles,
    nvfp4,
    packed_integers,
    read_all,
    save,
    whole_bytes,
)

from ggq import cli, quants
from ggq.converters import formats
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.errors import FormatError, GGQError, ModelError
from ggq.gguf import open_gguf
from ggq.quants.mixtures import MixtureOptions

PURE = Options(mixture=MixtureOptions(pure=True))

FOLDERS = {
    "gptq": (lambda rng, r, c: gptq(rng, r, c), GPTQ),
    "gptq-sym": (lambda rng, r, c: gptq(rng, r, c, sym=True), GPTQ),
    "gptq-act-order": (lambda rng, r, c: gptq(rng, r, c, bits=3, act_order=True), GPTQ),
    "awq": (awq, AWQ),
    "fp8": (fp8, FP8 | {"weight_block_size": [48, 48]}),
    "packed": (packed_integers, CT | {"format": "pack-quantized"}),
    "packed-asym": (lambda rng, r, c: packed_integers(rng, r, c, sym=False, dtype="F16"), CT),
    "int8": (whole_bytes, CT | {"format": "int-quantized"}),
    "fp8-rows": (lambda rng, r, c: fp8(rng, r, c, (1, 0), ".weight_scale"), CT),
    "mxfp4": (mxfp4, CT),
    "nvfp4": (nvfp4, CT),
    "modelopt": (modelopt_fp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "modelopt-nameless": (modelopt_fp4, {"producer": {"name": "modelopt"}, "quant_algo": "NVFP4"}),
    "modelopt-fp8": (
        lambda rng, r, c: fp8(rng, r, c, None, ".weight_scale"),
        {"quant_algo": "FP8"},
    ),
    "nf4": (nibbles, BNB),
    "fp4-double": (lambda rng, r, c: nibbles(rng, r, c, "fp4", nested=True), BNB),
    "int8-bnb": (llm_int8, BNB | {"load_in_8bit": True}),
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
            assert a.metadata["ggq.source_quantization"] == FOLDERS[name][1].get(
                "quant_method", "modelopt"
            )
            compare_files(a, b, c, made)


def compare_files(got, want, source, made):
    """Bytes are those that the values give, or blocks that hold exactly these values."""
    assert list(got.tensors) == list(want.tensors)
    exact = frozenset.intersection(*(m.exact for m in made.values()))
    kept = frozenset.intersection(*(m.kept for m in made.values()))
    for name, tensor in got.tensors.items():
        kind = quants.by_id(tensor.type_id)
        assert kind.name == "MXFP4" or tensor.type_id == want.tensors[name].type_id
        data = got.data(name)
        if kind.name in exact | kept and name.startswith("blk.") and len(tensor.shape) == 2:
            values = source.data(name).view(np.float32)
            tolerance = 2**-11 if kind.name in kept else 0
            np.testing.assert_allclose(kind.dequantize(data), values, tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(data, want.data(name), err_msg=name)


def test_experts_are_decoded_one_by_one(tmp_path):
    quantized, plain = make_experts(tmp_path, lambda rng, r, c: gptq(rng, r, c, sym=True), GPTQ)
    for file_type in ("F32", "Q4_0"):
        convert(quantized, tmp_path / f"{file_type}.gguf", file_type)
    convert(plain, tmp_path / "want.gguf", "F32")
    with open_gguf(tmp_path / "want.gguf") as want:
        with open_gguf(tmp_path / "F32.gguf") as got:
            for name in want.tensors:
                np.testing.assert_array_equal(got.data(name), want.data(name), err_msg=name)
        with open_gguf(tmp_path / "Q4_0.gguf") as got:
            for name in ("blk.0.ffn_down_exps.weight", "blk.0.ffn_gate_exps.weight"):
                kind = quants.by_id(got.tensors[name].type_id)
                assert kind.name == "Q4_0" and got.tensors[name].shape[0] == 3
                values = want.data(name).view(np.float32)
                np.testing.assert_array_equal(kind.dequantize(got.data(name)), values)


def test_biases_of_zeros_that_autogptq_adds_are_left_out(tmp_path):
    quantized, *_ = make_pair(tmp_path, *FOLDERS["gptq"])
    tensors = read_all(quantized)
    zeros = {"q_proj": np.zeros(64, np.float16), "k_proj": np.ones(32, np.float16)}
    for name, bias in zeros.items():
        tensors[f"model.layers.0.self_attn.{name}.bias"] = ("F16", bias)
    save(quantized, tensors)
    with prepare(quantized, tmp_path / "x.gguf", "F32") as job:
        assert [n for n in job.tensors if n.endswith("bias")] == ["blk.0.attn_k.bias"]


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


def test_the_type_that_keeps_the_codes_is_told(tmp_path):
    kept = {"gptq-sym": "Q4_0", "gptq": "Q4_1", "int8": "Q8_0", "nf4": None, "gptq-act-order": None}
    for name, kind in kept.items():
        quantized, *_ = make_pair(tmp_path / name, *FOLDERS[name])
        with prepare(quantized, tmp_path / "x.gguf", "IQ4_NL", options=PURE) as job:
            notes = [w for w in job.warnings if "quantized already" in w]
        told = [n.rpartition("type ")[2] for n in notes]
        assert told == [f"{kind} keeps their codes"] * bool(kind)
        with prepare(quantized, tmp_path / "x.gguf", "F16") as job:
            assert not [w for w in job.warnings if "quantized already" in w]


def test_a_prepass_that_replans_finds_the_codes_kept(tmp_path):
    quantized, plain, _ = make_pair(tmp_path, *FOLDERS["gptq-sym"])
    name = "blk.0.ffn_up.weight"

    def replan(job):
        job.plan.types = [(n, "Q4_0" if n == name else t) for n, t in job.plan.types]

    convert(quantized, tmp_path / "got.gguf", "F16", prepasses=[replan])
    convert(plain, tmp_path / "want.gguf", "F32")
    with open_gguf(tmp_path / "got.gguf") as got, open_gguf(tmp_path / "want.gguf") as want:
        values = want.data(name).view(np.float32)
        np.testing.assert_array_equal(quants.get("Q4_0").dequantize(got.data(name)), values)


def test_check_tells_of_quantized_weights(tmp_path, capsys):
    quantized, *_ = make_pair(tmp_path, *FOLDERS["awq"])
    assert cli.main(["check", str(quantized)]) == 0
    assert "weights are quantized already (awq)" in capsys.readouterr().out
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "aqlm"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cli.main(["check", str(tmp_path / "config.json")]) == 1
    assert "quantization method 'aqlm' is not supported" in capsys.readouterr().err


# --- what is malformed ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "config.json: quantization_config is not an object"),
        ({}, "config.json: quantization method None is not supported, only auto-round, aw"),
        ({"quant_method": ["gptq"]}, r"quantization method \['gptq'\] is not supported"),
        ({"quant_method": "aqlm\x1b"}, r"quantization method 'aqlm\\x1b' is not supported"),
        (GPTQ | {"checkpoint_format": "marlin"}, "GPTQ checkpoint_format 'marlin' is not"),
        (GPTQ | {"is_marlin_format": True}, "GPTQ checkpoint_format 'marlin' is not"),
        (GPTQ | {"group_size": "big"}, "quantization_config.group_size is 'big', no number"),
        (AWQ | {"version": "gemv"}, "AWQ gemv with 4 bits is not supported, only gemm with 4"),
        (FP8 | {"weight_block_size": [128, 0]}, r"weight_block_size is \[128, 0\], not two"),
        (CT | {"format": "marlin-24"}, "format 'marlin-24' is not supported"),
        (CT | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity format 'sparse-24"),
        (CT | {"transform_config": {"config_groups": {"a": {}}}}, "transforms .* not supported"),
        (CT | {"config_groups": [1]}, "config_groups is no object of objects"),
        (
            {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor"},
            "AutoRound packing_format 'auto_round:llm_compressor' is not supported, only",
        ),
        (AWQ | {"bits": 3}, "AWQ gemm with 3 bits is not supported"),
    ],
)
def test_methods_that_are_not_known_are_named(settings, message):
    with pytest.raises(GGQError, match=message):
        formats.decoded({}, formats.quantization({"quantization_config": settings}))


STATE = ".weight.quant_state.bitsandbytes__nf4"


def json_bytes(value):
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


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
        (fp8, FP8, without(".weight_scale_inv"), r"m\.weight has no m\.weight_scale_inv beside"),
        (fp8, FP8, lambda p: None, r"has shape \(1, 2\), a weight of \(32, 64\) in bl"),
        (packed_integers, CT, without(".weight_scale"), r"has no m\.weight_scale beside it"),
        (packed_integers, CT, without(".weight_shape"), r"has no m\.weight_shape beside it"),
        (packed_integers, CT, changed(".weight_shape", "I64", np.array([32, 65])), "not hold a"),
        (packed_integers, CT, changed(".weight_shape", "I64", np.array([-1, 64])), "says"),
        (packed_integers, CT, changed(".weight_scale", "F32", np.ones((32, 3), "f4")), "needs"),
        (packed_integers, CT, changed(".weight_zero_point", "I8", np.ones((3, 2), "i1")), "needs"),
        (
            packed_integers,
            CT,
            changed(".weight_zero_point", "I8", np.full((32, 2), 8, "i1")),
            "4 bits",
        ),
        (
            packed_integers,
            CT,
            changed(".weight_zero_point", "F32", np.full((32, 2), 0.5, "f4")),
            "4 ",
        ),
        (packed_integers, CT, changed(".weight_g_idx", "I32", np.full(64, 2, "i4")), "outside its"),
        (whole_bytes, CT, without(".weight"), r"m\.weight_scale has no m\.weight beside it"),
        (whole_bytes, CT, changed(".weight", "F32", np.ones((32, 64), "f4")), "F32, not I8 or F8"),
        (mxfp4, CT, changed(".weight_scale", "U8", np.ones((32, 3), "u1")), r"scale has shape"),
        (nvfp4, CT, changed(".weight_global_scale", "F32", np.ones(2, "f4")), "needs"),
        (llm_int8, BNB, without(".weight"), r"m\.SCB has no m\.weight beside it"),
        (llm_int8, BNB, changed(".weight_format", "U8", np.uint8(2)), "only rows in order"),
        (llm_int8, BNB, changed(".SCB", "F32", np.ones(31, "f4")), r"needs \(32,\) or"),
        (nibbles, BNB, without(".weight.absmax"), r"m\.weight has no m\.weight\.absmax beside"),
        (nibbles, BNB, without(".weight.quant_map"), r"has no m\.weight\.quant_map beside"),
        (
            nibbles,
            BNB,
            changed(".weight", "U8", np.ones(9, "u1")),
            r"does not hold \(32, 64\) in 4",
        ),
        (nibbles, BNB, changed(STATE, "U8", np.full(9, 91, "u1")), "nf4 holds no JSON object"),
        (nibbles, BNB, changed(STATE, "U8", json_bytes({"shape": [5]})), r"says shape \[5\]"),
        (nibbles, BNB, changed(STATE, "U8", json_bytes({"shape": [32, 64]})), "blocksize None"),
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
        formats.decoded(stored, formats.quantization({"quantization_config": settings}))


@pytest.mark.parametrize(
    ("name", "file", "settings"),
    [
        ("gptq", "quantize_config.json", {"bits": 4, "group_size": 32, "desc_act": False}),
        ("awq", "quant_config.json", {"w_bit": 4, "q_group_size": 32, "version": "GEMM"}),
    ],
)
def test_settings_may_lie_beside_the_config(tmp_path, name, file, settings):
    quantized, plain, _ = make_pair(tmp_path, *FOLDERS[name])
    (quantized / "config.json").write_text((plain / "config.json").read_text())
    (quantized / file).write_text(json.dumps(settings))
    with prepare(quantized, tmp_path / "x.gguf", "F32") as job:
        assert {i.key: i.value for i in job.items}["ggq.source_quantization"] == name


DTYPES = ("U8", "I8", "I32", "I64", "F16", "BF16", "F32", "F8_E4M3", "F8_E8M0")
SHAPES = ((), (0,), (1,), (2,), (64,), (32, 1), (0, 8), (2, 32), (32, 64), (2, 4, 8), (8, 32))


@pytest.mark.parametrize("name", list(FOLDERS))
def test_no_piece_breaks_the_decoder(tmp_path, rng, name):
    """Whatever shape and type a piece has: an error that names what is wrong, or values."""
    maker, settings = FOLDERS[name]
    made = maker(rng, 32, 64)
    outcomes = {attempt(load(tmp_path, {"m" + s: p for s, p in made.pieces.items()}), settings)}
    kinds = list(itertools.product(DTYPES, SHAPES))
    for suffix in made.pieces:
        for dtype, shape in (kinds[i] for i in rng.permutation(len(kinds))[:16]):
            junk = rng.integers(0, 60, (*shape, 8)).astype(np.uint8)  # finite floats
            junk = junk.view(NUMPY[dtype])[..., 0]
            pieces = made.pieces | {suffix: (dtype, junk)}
            stored = load(tmp_path, {"m" + s: piece for s, piece in pieces.items()})
            outcomes.add(attempt(stored, settings))
    assert outcomes == {"refused", "read"}


def attempt(stored, settings):
    try:
        found = formats.decoded(stored, formats.quantization({"quantization_config": settings}))
        for tensor in found.values():
            if not hasattr(tensor, "stored"):
                tensor.read(slice(0, 3))
                for kind in ("Q4_0", "Q4_1", "Q8_0", "MXFP4"):
                    if tensor.fits(kind):
                        tensor.rounds(kind)
                        tensor.blocks(kind, slice(0, 3))
    except GGQError as error:
        assert "\n" not in str(error)
        return "refused"
    return "read"


def test_scales_without_a_value_are_refused_by_name(tmp_path):
    quantized, *_ = make_pair(tmp_path, *FOLDERS["gptq-sym"])
    tensors = read_all(quantized)
    tensors["model.layers.0.mlp.down_proj.scales"][1][0, 0] = np.inf
    save(quantized, tensors)
    for file_type, message in (("F32", "blk.0.ffn_down.weight holds NaN"), ("Q4_0", "too large")):
        with pytest.raises(FormatError, match=message):
            convert(quantized, tmp_path / "x.gguf", file_type)
    assert not list(tmp_path.glob("*.gguf*"))


def test_a_piece_of_no_weight_is_left_for_the_table_to_refuse(tmp_path):
    quantized, *_ = make_pair(tmp_path, *FOLDERS["awq"])
    tensors = read_all(quantized)
    tensors["model.layers.0.mlp.other.qzeros"] = ("I32", np.zeros((1, 1), np.int32))
    save(quantized, tensors)
    with pytest.raises(ModelError, match=r"mlp\.other\.qzeros of the checkpoint is not one that"):
        prepare(quantized, tmp_path / "x.gguf", "F32")
    assert not list(tmp_path.glob("*.gguf*"))


def test_gpt_oss_keeps_its_blocks_and_refuses_half_of_them(tmp_path):
    mixed, plain = make_gpt_oss(tmp_path)
    paths = {folder: tmp_path / f"{folder.name}.gguf" for folder in (mixed, plain)}
    for folder, path in paths.items():
        convert(folder, path, "F32")
    with open_gguf(paths[mixed]) as got, open_gguf(paths[plain]) as want:
        assert list(got.tensors) == list(want.tensors)
        for name in got.tensors:
            np.testing.assert_array_equal(got.data(name), want.data(name), err_msg=name)
    convert(mixed, tmp_path / "kept.gguf", "Q8_0")
    with open_gguf(tmp_path / "kept.gguf") as kept, open_gguf(paths[plain]) as want:
        name = "blk.0.ffn_up_exps.weight"
        kind = quants.by_id(kept.tensors[name].type_id)
        assert kind.name == "MXFP4"
        values = want.data(name).view(np.float32)
        np.testing.assert_array_equal(kind.dequantize(kept.data(name)), values)
    tensors = read_all(mixed)
    half = "model.layers.0.mlp.experts.down_proj_scales"
    save(mixed, tensors | {half: ("U8", np.ones((2, 64, 5), np.uint8))})
    with pytest.raises(FormatError, match=rf"{half} has shape \(2, 64, 5\), its weight needs"):
        prepare(mixed, tmp_path / "x.gguf", "F32")
    del tensors[half]
    save(mixed, tensors)
    with pytest.raises(FormatError, match=rf"down_proj_blocks has no {half} beside it"):
        prepare(mixed, tmp_path / "x.gguf", "F32")
