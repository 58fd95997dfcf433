"""LoRA adapters: merged into a checkpoint, and as GGUF adapters; what is no LoRA is refused."""

import json

import numpy as np
import pytest
from hfmaker import make_hf, save
from loramaker import make_lora, merged

import ggq
from ggq.cli import main
from ggq.converters.safetensors import SafetensorsFile
from ggq.gguf import open_gguf

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
Q = "model.layers.0.self_attn.q_proj"


def tensors_of(path):
    file = SafetensorsFile(path)
    found = {n: t.read(slice(None)).reshape(t.shape).copy() for n, t in file.tensors.items()}
    file.close()
    return found


@pytest.fixture
def base(tmp_path):
    return make_hf(tmp_path / "hf", **SMALL)


@pytest.fixture
def shapes(base):
    held = tensors_of(base / "model.safetensors")
    return {n: x.shape for n, x in held.items() if x.ndim == 2}


def values(path):
    with open_gguf(path) as file:
        found = {n: file.data(n) for n in file.tensors}
        return {
            n: raw.view(np.float32).reshape(file.tensors[n].shape).copy()
            for n, raw in found.items()
        }


@pytest.mark.parametrize(
    ("config", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"lora_alpha": 3}, 0.75)]
)
def test_merging_adds_the_scaled_product(base, shapes, tmp_path, config, scale):
    lora = make_lora(tmp_path / "lora", shapes, **config)
    done = ggq.convert(base, tmp_path / "m.gguf", type="F32", merge_lora=[lora])
    assert any("merged into 14 weights, rank 4" in w for w in done.warnings)
    want = merged(tensors_of(base / "model.safetensors"), lora, scale)
    other = make_hf(tmp_path / "other", **SMALL)
    save(other, want)
    ggq.convert(other, tmp_path / "want.gguf", type="F32")
    got, want = values(tmp_path / "m.gguf"), values(tmp_path / "want.gguf")
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[n], want[n]) for n in want)
    with open_gguf(tmp_path / "m.gguf") as file:
        assert list(file.metadata["ggq.merged_lora"].texts()) == ["lora"]


def test_two_adapters_are_both_added(base, shapes, tmp_path):
    one = make_lora(tmp_path / "one", shapes, ("q_proj",))
    two = make_lora(tmp_path / "two", shapes, ("q_proj", "lm_head"), seed=6)
    both = ggq.convert(base, tmp_path / "b.gguf", type="F32", merge_lora=[one, two])
    plain = tensors_of(base / "model.safetensors")
    want = merged(merged(plain, one, 2.0), two, 2.0)["lm_head.weight"]
    assert np.array_equal(values(both[0])["output.weight"], want)


def test_the_token_embedding_and_whole_weights_are_merged(base, shapes, tmp_path):
    lora, rng = make_lora(tmp_path / "lora", shapes), np.random.default_rng(1)
    table = shapes["model.embed_tokens.weight"]
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((4, table[0]), (table[1], 4)))
    head = rng.normal(size=shapes["lm_head.weight"]).astype(np.float32)
    held = tensors_of(lora / "adapter_model.safetensors")
    held["base_model.model.model.embed_tokens.lora_embedding_A"] = a
    held["base_model.model.model.embed_tokens.lora_embedding_B"] = b
    held["base_model.model.lm_head.weight"] = head
    save(lora, held)
    (lora / "model.safetensors").rename(lora / "adapter_model.safetensors")
    ggq.convert(base, tmp_path / "m.gguf", type="F32", merge_lora=[lora])
    got = values(tmp_path / "m.gguf")
    old = tensors_of(base / "model.safetensors")["model.embed_tokens.weight"]
    want = (old + 2.0 * (b.astype(np.float64) @ a).T).astype(np.float32)
    assert np.array_equal(got["output.weight"], head)
    assert np.abs(got["token_embd.weight"] - want).max() < 1e-6
    with pytest.raises(ggq.GGQError, match=r"lm_head.weight is a whole weight.*--merge-lora"):
        ggq.convert(lora, tmp_path / "a.gguf", base=base)


@pytest.mark.parametrize("of", ["folder", "gguf"])
def test_an_adapter_as_llama_cpp_reads_it(base, shapes, tmp_path, of):
    ranks = {"k_proj": 2, "down_proj": 6}
    lora = make_lora(tmp_path / "lora", shapes, ranks=ranks, alpha_pattern={"k_proj": 16})
    if of == "gguf":
        (model,) = ggq.convert(base, tmp_path / "base.gguf", type="Q8_0")
    ggq.convert(lora, tmp_path / "a.gguf", base=base if of == "folder" else model)
    with open_gguf(tmp_path / "a.gguf") as file:
        said = {k: file.metadata[k] for k in ("general.type", "adapter.type", "adapter.lora.alpha")}
        arch = file.metadata["general.architecture"]
    assert said == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    assert arch == "llama"
    ggq.convert(base, tmp_path / "plain.gguf", type="F32")
    ggq.convert(base, tmp_path / "m.gguf", type="F32", merge_lora=[lora])
    plain, want, got = (values(tmp_path / f"{n}.gguf") for n in ("plain", "m", "a"))
    changed = [n for n in plain if f"{n}.lora_a" in got]
    assert len(changed) == 14 and len(got) == 28
    for name in changed:  # a reader's arithmetic: alpha over the pair's own rank
        a, b = (got[f"{name}.lora_{half}"].astype(np.float64) for half in "ab")
        sums = plain[name] + 8.0 / len(a) * (b @ a)
        assert np.abs(sums - want[name]).max() < 1e-6, name


def test_the_command(base, shapes, tmp_path, capsys):
    lora, out = make_lora(tmp_path / "lora", shapes), tmp_path / "a.gguf"
    assert main(["convert", str(lora), str(out), "--base", str(base), "-t", "F16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["type"] == "F16" and told["tensors"]["blk.0.attn_q.weight.lora_a"] == "F16"
    assert main(["convert", str(lora), "--base", str(base), "--dry-run"]) == 0
    assert "28 tensors" in capsys.readouterr().out
    assert main(["convert", str(base), str(tmp_path), "--merge-lora", str(lora), "-q"]) == 0
    assert "rank 4" in capsys.readouterr().err


def refusals(base, lora, tmp_path, *ways):
    """Return what both ways of using an adapter, or the named ones, say against it."""
    told = {}
    for way in ways or ("merge", "convert"):
        out = tmp_path / f"{way}.gguf"
        with pytest.raises(ggq.GGQError) as error:
            if way == "merge":
                ggq.convert(base, out, type="F16", merge_lora=[lora])
            else:
                ggq.convert(lora, out, base=base)
        assert not out.exists() and "\n" not in str(error.value)
        told[way] = str(error.value)
    return told.values()


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias all"),
        ({"lora_bias": True}, "biases"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "merged experts"),
        ({"alora_invocation_tokens": [1, 2]}, "activated"),
        ({"trainable_token_indices": [3]}, "token embedding"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"use_newest": True}, "use_newest"),
        ({"r": 8}, "rank 4"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"alpha_pattern": {"(a+)+": 2}}, "alpha_pattern"),
    ],
)
def test_other_forms_are_refused_by_name(base, shapes, tmp_path, config, word):
    lora = make_lora(tmp_path / "lora", shapes, **config)
    assert all(word in told for told in refusals(base, lora, tmp_path))


def test_an_adapter_of_another_base(base, shapes, tmp_path):
    wider = {n: (s[0] * 2, s[1]) for n, s in shapes.items()}
    lora = make_lora(tmp_path / "wide", wider)
    assert all("another model's" in told for told in refusals(base, lora, tmp_path))
    lora = make_lora(tmp_path / "deep", {"model.layers.7.self_attn.q_proj.weight": (64, 64)})
    assert all("no tensor model.layers.7" in told for told in refusals(base, lora, tmp_path))


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        (f"{Q}.lora_magnitude_vector", (64,), "no part of LoRA"),
        ("model.layers.0.mlp.up_proj.lora_A.weight", (4, 64), "no lora_B"),
        ("model.layers.0.self_attn.q_proj.lora_B.weight", (64, 5), r"lora_B of (64, 5)"),
    ],
)
def test_tensors_that_do_not_fit(base, tmp_path, name, shape, words):
    lora = make_lora(tmp_path / "lora", {f"{Q}.weight": (64, 64)})
    held = tensors_of(lora / "adapter_model.safetensors")
    save(lora, held | {f"base_model.model.{name}": np.ones(shape, np.float32)})
    (lora / "model.safetensors").rename(lora / "adapter_model.safetensors")
    assert all(words in told for told in refusals(base, lora, tmp_path))


def test_what_is_no_adapter_and_what_is_asked_of_one(base, shapes, tmp_path):
    (told,) = refusals(base, base, tmp_path, "merge")
    assert "no adapter_config.json" in told
    (told,) = refusals(base, base, tmp_path, "convert")
    assert "--base" in told or "base" in told
    lora = make_lora(tmp_path / "lora", shapes)
    (model,) = ggq.convert(base, tmp_path / "base.gguf", type="F16")
    with pytest.raises(ggq.GGQError, match="not into a GGUF file"):
        ggq.convert(model, tmp_path / "o.gguf", merge_lora=[lora])
    for option in ({"type": "Q4_K_M"}, {"quality": "good"}, {"pure": True}, {"target_bpw": 4.0}):
        with pytest.raises(ggq.GGQError, match="adapter"):
            ggq.convert(lora, tmp_path / "o.gguf", base=base, **option)
