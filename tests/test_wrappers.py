"""Models of images and sound: their text model gives the same tensors as it does alone."""

import json
from dataclasses import replace

import pytest
from hfmaker import LLAMA, make_hf

from ggq import models
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.tensors import hf_tensors
from ggq.errors import ModelError
from ggq.models.pooled import POOLED_KEYS
from ggq.models.table import config_value
from ggq.models.wrappers import TEXT_CLASSES, WRAPPERS

# How released checkpoints name the text model's tensors and those beside it.
NAMES = {
    "old": ("language_model.{}", "vision_tower.blocks.0.weight"),
    "new": ("model.language_model.{}", "model.multi_modal_projector.linear_1.weight"),
    "idefics": ("model.text_model.{}", "model.connector.modality_projection.proj.weight"),
    "plain": ("{}", "visual.patch_embed.proj.weight"),
    "janus": ("model.language_model.{}", "model.generation_head.proj_out.weight"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_hf(tmp_path_factory.mktemp("llama"), hidden_size=64, intermediate_size=64)


def inside(folder, wrapper, form, **text):
    """Return (config, checkpoint) of ``wrapper`` around the folder's model."""
    checkpoint = Checkpoint(folder)
    prefix, beside = NAMES[form]
    renamed = {}
    for name, tensor in checkpoint.tensors.items():
        short = name if form in ("old", "plain") else name.removeprefix("model.")
        other = name if name.startswith("lm_head") and form != "old" else prefix.format(short)
        renamed[other] = replace(tensor, name=other)
    checkpoint.tensors = renamed | {beside: None}
    config = {"architectures": [wrapper], "vision_config": {"depth": 1}}
    return config | {"text_config": {**checkpoint.config, **text}}, checkpoint


@pytest.mark.parametrize("form", NAMES)
def test_the_text_model_is_the_same_as_alone(form, folder):
    plain = Checkpoint(folder)
    arch = models.get("llama")
    hp = arch.hparams(plain.config)
    want, _ = hf_tensors(plain, arch, hp)
    config, checkpoint = inside(folder, "LlavaForConditionalGeneration", form)
    assert models.for_hf(config) is arch and arch.hparams(config) == hp
    got, skipped = hf_tensors(checkpoint, arch, hp)
    assert [(t.name, t.shape) for t in got] == [(t.name, t.shape) for t in want]
    assert skipped == [NAMES[form][1]]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_every_wrapper_leads_to_its_text_model(wrapper, kind):
    config = {"architectures": [wrapper], "text_config": {**LLAMA, "model_type": kind}}
    assert TEXT_CLASSES[kind] in models.for_hf(config).hf_classes


def test_every_kind_of_text_model_is_known():
    for name in TEXT_CLASSES.values():
        assert models.for_hf({"architectures": [name]})


def test_other_text_models_are_refused_by_name():
    config = {"architectures": [WRAPPERS[0]], "text_config": {"model_type": "opt"}}
    with pytest.raises(ModelError, match=r"text_config\.model_type is 'opt'; inside .* llama"):
        models.for_hf(config)
    with pytest.raises(ModelError, match="without text_config"):
        models.for_hf({"architectures": [WRAPPERS[0]]})


def test_sizes_left_out_are_those_of_the_class():
    text = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
    config = {"architectures": ["LlavaForConditionalGeneration"], "text_config": text}
    hp = models.for_hf(config).hparams(json.loads(json.dumps(config)))
    assert (hp.n_embd, hp.n_layer, hp.n_head, hp.n_ctx_train) == (4096, 32, 32, 4096)


ALIASES = {
    "InternLM3ForCausalLM": ("llama", {"bias": False, "qkv_bias": False}),
    "IQuestCoderForCausalLM": ("llama", {}),
    "MobileLLMForCausalLM": ("llama", {"share_embedding": True}),
    "DotsOCRForCausalLM": ("qwen2", {"vision_config": {"depth": 1}}),
    "KORMoForCausalLM": ("qwen2", {}),
}


@pytest.mark.parametrize("name", ALIASES)
def test_classes_with_another_ones_graph(name, folder):
    arch, settings = ALIASES[name]
    checkpoint = Checkpoint(folder)
    if name == "KORMoForCausalLM":
        tensors = checkpoint.tensors.values()
        checkpoint.tensors = {}
        for tensor in tensors:
            other = tensor.name.replace("input_layernorm", "pre_attention_layernorm")
            other = other.replace("post_attention_layernorm", "pre_mlp_layernorm")
            checkpoint.tensors[other] = replace(tensor, name=other)
    config = checkpoint.config | settings | {"architectures": [name], "model_type": "other"}
    found = models.for_hf(config)
    hp = found.hparams(config)
    tensors, skipped = hf_tensors(checkpoint, found, hp)
    assert found.name == arch and len(tensors) == 21 and skipped == []


def test_layers_used_twice_are_refused():
    config = {**LLAMA, "vocab_size": 384, "architectures": ["MobileLLMForCausalLM"]}
    with pytest.raises(ModelError, match="layer_sharing is True"):
        models.for_hf(config).hparams(config | {"layer_sharing": True})


def test_older_stablelm_says_the_same_in_other_words():
    both = {k: v for k, v in LLAMA.items() if k != "rms_norm_eps"} | {"vocab_size": 384}
    new = both | {"layer_norm_eps": 1e-3, "partial_rotary_factor": 0.5}
    old = both | {"norm_eps": 1e-3, "rope_pct": 0.5}
    classes = ("StableLmForCausalLM", "StableLMEpochForCausalLM")
    a, b = (
        models.for_hf(c | {"architectures": [n]}).hparams(c | {"architectures": [n]})
        for c, n in zip((new, old), classes, strict=True)
    )
    assert a == b


@pytest.mark.parametrize("name", ["ChatGLMModel", "BloomModel", "GPT2Model"])
def test_models_whose_class_sounds_bare_write_texts(name):
    arch = models.for_hf({"architectures": [name]})
    config = arch.config({"architectures": [name]})
    (head,) = (key for key in POOLED_KEYS if key.attr == "output_head")
    assert config_value(config, head) is not False
