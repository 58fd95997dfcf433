"""Architectures as data: each tensor consumed once, keys read back as written, bad values named."""

import ast
import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hfmaker import LLAMA, llama3_rope, make_hf, save, shapes_of

from ggq import models
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.tensors import hf_tensors
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.errors import GGQError, ModelError
from ggq.models.base import Architecture
from ggq.models.hparams import HParams

LLAMA3 = llama3_rope(64)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
CONFIGS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 32},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": YARN},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "new rope": {"rope_theta": None, "rope_parameters": {**LLAMA3, "rope_theta": 5e5}},
}


def as_gguf(arch, config, tensors=()):
    """Return what a GGUF file of ``config`` looks like to a model."""
    metadata = {k: v for k, v, _ in arch.metadata(config)}
    named = {n: SimpleNamespace(shape=s) for n, s in tensors}
    return SimpleNamespace(metadata=metadata, tensors=named)


@pytest.mark.parametrize("name", CONFIGS)
def test_hparams_from_config_and_from_keys_agree(name):
    config = {**LLAMA, "vocab_size": 384, **CONFIGS[name]}
    arch = models.for_hf(config)
    hp = arch.hparams(config)
    assert arch.hparams(as_gguf(arch, config)) == hp
    assert (hp.n_vocab, hp.n_embd, hp.n_layer, hp.layers[1].feed.n_ff) == (384, 256, 2, 512)
    assert hp.layers[0].mixer.head_dim == (32 if name == "mistral" else 64)
    assert hp.rope.base == (5e5 if name == "new rope" else 1e4)
    want = {"yarn": ("yarn", 4.0, 128), "linear": ("linear", 2.0, 512)}
    found = (hp.rope.scaling, hp.rope.factor, hp.rope.original_context)
    assert found == want.get(name, ("none", 1.0, 512))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_hf_tensor_is_consumed_once_and_every_gguf_tensor_known(tmp_path, name):
    folder = make_hf(tmp_path / "hf", tokenizer=None, **CONFIGS[name])
    checkpoint = Checkpoint(folder)
    arch = models.for_hf(checkpoint.config)
    hp = arch.hparams(checkpoint.config)
    tensors, skipped = hf_tensors(checkpoint, arch, hp)
    used = [p.name for t in tensors for p in getattr(t, "parts", ())]
    assert sorted(used) == sorted(checkpoint.tensors) and skipped == []
    known = {n: arch.shape(row, hp, i) for n, row, i in arch.rows(hp)}
    assert {t.name: t.shape for t in tensors} == {t.name: known[t.name] for t in tensors}
    gguf = as_gguf(arch, checkpoint.config, [(t.name, t.shape) for t in tensors])
    arch.check(gguf, hp)
    assert ("rope_freqs.weight" in gguf.tensors) == (name in ("llama3", "new rope"))
    del gguf.tensors["blk.1.ffn_up.weight"]
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight"):
        arch.check(gguf, hp)


@pytest.mark.parametrize("arch", models.all_architectures(), ids=lambda a: a.name)
def test_tables_are_consistent(arch):
    names = [row.gguf for row in arch.tensors]
    assert len(names) == len(set(names))
    assert len({key.gguf for key in arch.keys}) == len(arch.keys)
    for row in arch.tensors:
        assert row.transform in TRANSFORMS
        assert all(("{i}" in p) == row.per_layer for p in row.hf)
        assert row.absorbs is None or row.absorbs in names
        assert row.input is None or len(row.shape) >= 2
        assert not (row.f32 and row.input)
    producers = {}
    for row in arch.tensors:  # tensors that share an input share the producer that may absorb
        if row.input:
            assert producers.setdefault(row.input, row.absorbs) == row.absorbs


def test_unknown_and_missing_tensors_are_named(tmp_path):
    config = {**LLAMA, "vocab_size": 384}
    tensors = {n: np.zeros(s, np.float32) for n, s in shapes_of(config)}
    arch = models.get("llama")
    (tmp_path / "config.json").write_text(json.dumps(config))

    def bind(changed):
        save(tmp_path, changed)
        checkpoint = Checkpoint(tmp_path)
        return hf_tensors(checkpoint, arch, arch.hparams(config))

    with pytest.raises(ModelError, match=r"model\.layers\.0\.mystery\.weight"):
        bind({**tensors, "model.layers.0.mystery.weight": np.zeros((4, 4), np.float32)})
    less = {n: x for n, x in tensors.items() if n != "model.layers.1.mlp.up_proj.weight"}
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        bind(less)
    with pytest.raises(ModelError, match=r"shape \(2, 256\)"):
        bind({**tensors, "model.norm.weight": np.zeros((2, 256), np.float32)})
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros((4,), np.float32)}
    assert bind({**tensors, **extra})[1] == list(extra)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 0}, "head count 0"),
        ({"num_attention_heads": 3, "num_key_value_heads": 3}, "no multiple of the head count 3"),
        ({"num_key_value_heads": 3}, "4 heads over 3"),
        ({"num_hidden_layers": 2.5}, "block_count is 2.5, expected u32"),
        ({"hidden_size": "big"}, "embedding_length is 'big'"),
        ({"num_hidden_layers": 10**6}, "block count 1000000"),
        ({"rms_norm_eps": float("nan")}, "layer_norm_rms_epsilon is nan"),
        ({"max_position_embeddings": -1}, "context_length is -1"),
        ({"hidden_size": None}, "config.json has no hidden_size"),
        ({"head_dim": 33}, "33 rotary dimensions"),
        ({"num_attention_heads": [4] * 5000}, "head_count has 5000 values"),
        ({"intermediate_size": [512]}, "1 feed-forward for 2 layers"),
    ],
)
def test_bad_values_end_in_one_line(change, message):
    with pytest.raises(GGQError, match=message.replace("(", r"\(")) as caught:
        models.get("llama").hparams({**LLAMA, "vocab_size": 384, **change})
    assert "\n" not in str(caught.value)


def test_per_layer_values_are_read_by_layer():
    config = {**LLAMA, "vocab_size": 8, "num_key_value_heads": [4, 1], "intermediate_size": [8, 16]}
    hp = models.get("llama").hparams(config)
    assert [layer.mixer.n_head_kv for layer in hp.layers] == [4, 1]
    assert [layer.feed.n_ff for layer in hp.layers] == [8, 16]
    assert hp.dim("k", 0) == 256 and hp.dim("k", 1) == 64 and hp.dim("2*ff", 1) == 32


def test_models_stay_small():
    assert len(fields(HParams)) < 18
    for path in Path(models.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"


def test_unsupported_architectures_name_the_nearest():
    with pytest.raises(ModelError, match=r"'llamb' is not supported.*supported: llama"):
        models.get("llamb")
    with pytest.raises(ModelError, match=r"'LlamaForCausalLM2'.*supported: LlamaForCausalLM"):
        models.for_hf({"architectures": ["LlamaForCausalLM2"]})
    with pytest.raises(ModelError, match="expected the names of classes"):
        models.for_hf({"architectures": "x"})
    with pytest.raises(ModelError, match="not supported"):
        models.get(7)
    assert models.for_hf({"model_type": "llama"}).name == "llama"


def test_architecture_without_forward_says_so():
    class Empty(Architecture):
        name = "empty"

    with pytest.raises(NotImplementedError, match="empty"):
        Empty().forward(None, None)


QWEN35 = {
    "qwen35.block_count": 4,
    "qwen35.context_length": 64,
    "qwen35.embedding_length": 64,
    "qwen35.feed_forward_length": 64,
    "qwen35.attention.head_count": 2,
    "qwen35.attention.layer_norm_rms_epsilon": 1e-6,
    "qwen35.ssm.conv_kernel": 4,
    "qwen35.ssm.state_size": 16,
    "qwen35.ssm.group_count": 2,
    "qwen35.ssm.time_step_rank": 4,
    "qwen35.ssm.inner_size": 64,
}
GEMMA4 = {
    "gemma4.block_count": 2,
    "gemma4.context_length": 64,
    "gemma4.embedding_length": 64,
    "gemma4.feed_forward_length": 64,
    "gemma4.attention.head_count": 2,
    "gemma4.attention.layer_norm_rms_epsilon": 1e-6,
    "gemma4.attention.key_length": 64,
    "gemma4.attention.key_length_swa": 16,
    "gemma4.attention.sliding_window": 8,
    "gemma4.rope.freq_base_swa": 1e4,
    "gemma4.rope.dimension_count_swa": 16,
}
LYING = [
    (QWEN35, {"ssm.group_count": 0}, "4 heads of state over 0 key heads"),
    (QWEN35, {"ssm.group_count": 3}, "4 heads of state over 3 key heads"),
    (QWEN35, {"ssm.time_step_rank": 0}, "0 heads of state"),
    (QWEN35, {"ssm.state_size": 0}, "4 heads of state"),
    (QWEN35, {"ssm.inner_size": 66}, "130 channels"),
    (QWEN35, {"ssm.conv_kernel": 1}, "a convolution over 1 tokens"),
    (QWEN35, {"nextn_predict_layers": 9}, "block count is 0"),
    (QWEN35, {"attention.recurrent_layers": [True]}, "1 recurrent layers for 4"),
    (GEMMA4, {"rope.dimension_count_swa": 32}, "32 rotary dimensions.*heads of 16"),
    (GEMMA4, {"attention.sliding_window_pattern": [True]}, "1 windows for 2"),
    (GEMMA4, {"attention.key_length_swa": 8}, "16 rotary dimensions.*heads of 8"),
    (GEMMA4, {"expert_count": 4}, "0 experts used of 4"),
]


@pytest.mark.parametrize(("keys", "change", "message"), LYING, ids=lambda v: str(v)[:40])
def test_sizes_that_cannot_be_end_in_one_line(keys, change, message):
    arch = models.get(next(iter(keys)).partition(".")[0])
    tokens = {"tokenizer.ggml.tokens": ["a"] * 8}

    def hparams(more):
        changed = {f"{arch.name}.{k}": v for k, v in more.items()}
        return arch.hparams(SimpleNamespace(metadata={**keys, **tokens, **changed}, tensors={}))

    assert hparams({}).arch == arch.name
    with pytest.raises(ModelError, match=message):
        hparams(change)
