"""Folders for serving engines: the library's own bytes, ggq's reading, transformers' logits."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hfmaker import TEXT, make_hf
from tinymodels import TINY, make_tiny

from ggq.cli import cli
from ggq.converters import grids
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.convert import convert
from ggq.errors import ModelError, UsageError
from ggq.gguf import open_gguf

pytestmark = pytest.mark.slow
LABELS = ("llama", "qwen3", "qwen3moe", "gemma3")
COMPRESSED = [n for n in grids.types() if n not in ("GPTQ", "AWQ")]
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    words = TEXT.split()
    order = np.random.default_rng(3).integers(0, len(words), 6000)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(words[i] for i in order), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=LABELS)
def model(request, tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param)
    make_tiny(next(t for t in TINY if t.label == request.param), folder)
    return folder


def exported(source, out, kind, **more):
    group = 32 if grids.types()[kind].grouped else None
    made = convert(source, out, kind, group_size=group, **more)
    assert list(made) == [out] and made.type == kind
    return Checkpoint(out), json.loads((out / "config.json").read_text()), made


def rows(checkpoint, name):
    return checkpoint.tensors[name].read(slice(None))


@pytest.mark.parametrize("kind", list(grids.types()))
def test_the_folder_holds_the_grid_s_values(model, tmp_path, kind):
    """Rows are quantized one by one, so that their order in the file does not matter."""
    back, config, made = exported(model, tmp_path / kind, kind, calibration=None)
    source, chosen = Checkpoint(model), grids.types()[kind]
    assert set(back.tensors) == set(source.tensors)
    dtype = chosen.dtype or "F32"
    n = 0
    for name, stored in source.tensors.items():
        w = stored.read(slice(None))
        is_linear = name.endswith("_proj.weight")
        if is_linear:
            group = 32 if chosen.grouped else w.shape[1]
            w = (grid := grids.grid(chosen.codes, group, dtype)).dequantize(grid.quantize(w))
            n += 1
        elif dtype == "F16":
            w = w.astype(np.float16).astype(np.float32)
        slack = (
            0 if is_linear else 1e-7 if dtype == "F32" else 1e-3
        )  # gemma's norms, 1 + w and back
        np.testing.assert_allclose(rows(back, name), w, rtol=0, atol=slack, err_msg=name)
    assert n > 10 and config["quantization_config"]["quant_method"] in (
        "compressed-tensors",
        "gptq",
        "awq",
    )
    size = sum(f.stat().st_size for f in (tmp_path / kind).glob("*.safetensors"))
    assert made.nbytes == size
    assert (tmp_path / kind / "tokenizer.json").read_bytes() == (
        model / "tokenizer.json"
    ).read_bytes()


def modules(folder, config):
    """Return the library's compressor, its scheme and the tensors of each quantized module."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    from safetensors.torch import load_file

    told = config["quantization_config"]
    scheme = QuantizationScheme.model_validate(told["config_groups"]["group_0"])
    tensors = load_file(folder / "model.safetensors")
    names = [n.removesuffix(".weight_scale") for n in tensors if n.endswith(".weight_scale")]
    found = {
        m: {n.removeprefix(f"{m}."): t for n, t in tensors.items() if n.startswith(f"{m}.weight")}
        for m in names
    }
    return BaseCompressor.get_value_from_registry(told["format"]), scheme, found


@pytest.mark.parametrize("kind", COMPRESSED)
def test_the_library_decompresses_and_compresses_the_same(model, tmp_path, kind):
    back, config, _ = exported(model, tmp_path / kind, kind)
    compressor, scheme, found = modules(tmp_path / kind, config)
    assert len(found) > 10
    for module, pieces in found.items():
        opened = compressor.decompress(dict(pieces), scheme)
        name = f"{module}.weight"
        np.testing.assert_array_equal(opened["weight"].float().numpy(), rows(back, name), name)
        again = compressor.compress(dict(opened), scheme)
        assert set(pieces) == set(again) | {"weight_shape"} & set(pieces)
        for piece, stored in pieces.items():
            assert again[piece].dtype == stored.dtype, piece
            np.testing.assert_array_equal(
                again[piece].view(again[piece].dtype).float().numpy(), stored.float().numpy(), piece
            )


@pytest.mark.parametrize("kind", ["W4A16", "W8A16"])
def test_transformers_computes_with_the_very_weights(model, tmp_path, kind):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")
    if "qwen3moe" in str(model):
        pytest.skip("transformers 5 joins experts while it loads, and knows no packed ones")
    back, _, _ = exported(model, tmp_path / kind, kind)
    ids = torch.arange(3, 60).reshape(1, -1)
    load = transformers.AutoModelForCausalLM.from_pretrained
    plain, quantized = (load(f, dtype=torch.float32).eval() for f in (model, tmp_path / kind))
    state = {
        n: torch.from_numpy(rows(back, n).reshape(back.tensors[n].shape)) for n in back.tensors
    }
    plain.load_state_dict(state, strict=False)
    with torch.no_grad():
        want, got = (m(ids).logits for m in (plain, quantized))
    assert torch.equal(want, got)


def error(folder, source):
    """Return the squared error of all linear layers' weights."""
    a, b = Checkpoint(folder), Checkpoint(source)
    names = [n for n in b.tensors if n.endswith("_proj.weight")]
    return sum(((rows(a, n) - rows(b, n)) ** 2).sum() for n in names)


@pytest.mark.parametrize("kind", ["W4A16", "W4A16_ASYM", "W8A8", "FP8", "AWQ"])
def test_passes_choose_the_codes_that_are_written(tmp_path, text, kind):
    pytest.importorskip("torch")
    source = make_hf(tmp_path / "hf", **SMALL)
    gptq = "gptq:tokens=2048,n_ctx=64"
    exported(source, tmp_path / "out", kind, prepasses=[gptq], calibration=text)
    exported(source, tmp_path / "plain", kind)
    assert error(tmp_path / "out", source) != error(tmp_path / "plain", source)
    told = json.loads((tmp_path / "out" / "ggq.json").read_text())
    assert json.loads(told["ggq.provenance"])["type"] == kind
    assert "gptq" in told["ggq.recipe"] and told["ggq.prepass.gptq"].startswith("tokens=2048")


def test_folds_leave_the_model_what_it_is(tmp_path, text):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    source = make_hf(tmp_path / "hf", **SMALL)
    for kind, passes in (
        ("W8A8", ["smooth:grid=2,tokens=512,n_ctx=64"]),
        ("W8A16", ["awq:grid=3,tokens=512,n_ctx=64"]),
    ):
        back, _, _ = exported(source, tmp_path / kind, kind, prepasses=passes, calibration=text)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        ids = torch.arange(3, 40).reshape(1, -1)
        with torch.no_grad():
            want = model(ids).logits
            norm = "model.layers.0.input_layernorm.weight"
            assert not np.array_equal(rows(back, norm), rows(Checkpoint(source), norm)), "folded"
            state = {
                n: torch.from_numpy(rows(back, n).reshape(t.shape)) for n, t in back.tensors.items()
            }
            model.load_state_dict(state, strict=False)
            assert (model(ids).logits - want).abs().max() < 0.05 * want.abs().max()


def test_smooth_has_nothing_to_do_where_activations_stay(tmp_path, text):
    pytest.importorskip("torch")
    source = make_hf(tmp_path / "hf", **SMALL)
    _, _, made = exported(source, tmp_path / "out", "W4A16", prepasses=["smooth"], calibration=text)
    assert any("smooth: left out, W4A16" in w for w in made.warnings)


def test_static_scales_are_the_largest_inputs(tmp_path, text):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    source = make_hf(tmp_path / "hf", **SMALL)
    passes = ["activations:tokens=256,n_ctx=64"]
    out = tmp_path / "out"
    exported(source, out, "W8A8_STATIC", prepasses=passes, calibration=text)
    from safetensors.numpy import load_file

    found = {
        n: float(x[0])
        for n, x in load_file(out / "model.safetensors").items()
        if "input" in n and x.shape == (1,)
    }
    assert len(found) == 14
    from ggq.converters.calibration.text import calibrate
    from ggq.converters.prepare import prepare

    with prepare(source, tmp_path / "x.gguf", "F32") as job:
        ids = torch.from_numpy(
            calibrate(job, text, 64, 4, spread=True, starts=True).windows.astype("i8")
        )
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    seen = {}
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(
                lambda m, x, name=name: seen.update({name: float(x[0].abs().max())})
            )
    with torch.no_grad():
        model(ids)
    for name, peak in seen.items():
        assert found[f"{name}.input_scale"] == pytest.approx(peak / 127, rel=1e-4), name
    q, k = (found[f"model.layers.0.self_attn.{n}_proj.input_scale"] for n in "qk")
    assert q == k


@pytest.mark.parametrize(("file", "kind"), [("Q4_0", "W4A16"), ("Q8_0", "W8A16"), ("Q4_0", "GPTQ")])
def test_a_file_s_codes_are_kept(tmp_path, file, kind):
    source = make_hf(tmp_path / "hf", tie_word_embeddings=True, **SMALL)
    (path,) = convert(source, tmp_path / "x.gguf", file)
    made = convert(path, tmp_path / "out", kind)
    assert any("codes of 14 tensors are kept" in w for w in made.warnings)
    (again,) = convert(tmp_path / "out", tmp_path / "y.gguf", file)
    with open_gguf(path) as a, open_gguf(again) as b:
        names = [n for n in a.tensors if n.startswith("blk.") and len(a.tensors[n].shape) > 1]
        assert len(names) == 14
        for name in names:
            np.testing.assert_array_equal(a.data(name), b.data(name), err_msg=name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] and config["torch_dtype"] == "float16"
    assert config["quantization_config"].get("group_size", 32) == 32


def test_quantized_files_are_not_quantized_once_more(tmp_path):
    source = make_hf(tmp_path / "hf", **SMALL)
    (path,) = convert(source, tmp_path / "x.gguf", "Q5_0")
    with pytest.raises(UsageError, match="is already Q5_0"):
        convert(path, tmp_path / "out", "W4A16", group_size=32)
    assert not (tmp_path / "out").exists()
    convert(path, tmp_path / "out", "W4A16", group_size=32, allow_requantize=True)


def test_what_stays_is_listed_and_told(tmp_path):
    source = make_hf(tmp_path / "hf", **SMALL)
    made = convert(source, tmp_path / "out", "W4A16", group_size=64, ignore=["layers.0.*q_proj"])
    assert {n for n, _, _ in made.fallbacks} == {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}
    left = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"][
        "ignore"
    ]
    assert left[0] == "lm_head" and sorted(left[1:]) == sorted(
        ["model.layers.0.self_attn.q_proj", *(f"model.layers.{i}.mlp.down_proj" for i in (0, 1))]
    )
    done = CliRunner().invoke(
        cli, ["convert", str(source), str(tmp_path / "dry"), "--type", "w8a8", "--dry-run"]
    )
    assert (
        done.exit_code == 0 and "INT8-G64-F32" in done.stdout and "model.safetensors" in done.stdout
    )
    assert not (tmp_path / "dry").exists()


def test_split_folders_have_an_index(tmp_path):
    source = make_hf(tmp_path / "hf", **SMALL)
    made = convert(source, tmp_path / "out", "FP8", split_max_size="40k")
    names = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert len(names) > 2 and [s.name for s, _ in made.shards] == names
    assert all((tmp_path / "out" / p.name).stat().st_size == n for p, n in made.shards)
    assert set(Checkpoint(tmp_path / "out").tensors) == set(Checkpoint(source).tensors)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"type": "W8A8", "group_size": 32}, "group.size: W8A8 has a scale for each row"),
        ({"type": "W4A16", "group_size": 48}, "group.size 48: one of 32, 64, 128"),
        ({"type": "W4A16", "group_size": 128}, "no tensor to quantize: rows of 64"),
        ({"type": "W4A16", "group_size": 32, "ignore": ["nothing"]}, "matches no module"),
        ({"type": "W4A16", "group_size": 32, "ignore": ["("]}, r"ignore \("),
        ({"type": "Q4_0", "group_size": 32}, "serving engines only"),
        ({"type": "Q4_0", "ignore": ["x"]}, "serving engines only"),
        ({"type": "FP8", "tensor_types": ["x=F16"]}, "tensor.type.*: not for a folder of FP8"),
        ({"type": "FP8", "pure": True}, "pure"),
        ({"type": "FP8", "via": "f16"}, "via"),
        ({"type": "FP8", "target_bpw": 4.0}, "target.bpw"),
        ({"type": "FP8", "target_kld": 0.1}, "target.kld"),
        ({"type": "FP8", "card": True}, "card"),
        (
            {"type": "W4A16", "group_size": 32, "prepasses": ["distill"]},
            "distill: not for a folder",
        ),
    ],
)
def test_wrong_wishes_are_refused_before_any_work(tmp_path, more, message):
    source = make_hf(tmp_path / "hf", **SMALL)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=message):
        convert(source, tmp_path / "out", **more)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_folder_a_file_and_other_models_are_refused(tmp_path):
    source = make_hf(tmp_path / "hf", **SMALL)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        convert(source, tmp_path / "full", "FP8")
    with pytest.raises(UsageError, match="is a file"):
        convert(source, tmp_path / "full" / "x", "FP8")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "text_config": {}}))
    with pytest.raises(ModelError, match="text_config"):
        convert(source, tmp_path / "out", "FP8")
