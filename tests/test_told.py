"""What a folder or a caller says wrongly is refused by name, or told: nothing goes silently."""

import json

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf, save

import ggq
from ggq.converters.convert import prepare
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import ModelError, UsageError


def warnings_of(folder, out):
    with prepare(str(folder), str(out)) as job:
        return job.warnings, {item.key: item.value for item in job.items}


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize("value", [[5], "LlamaForCausalLM", {"a": 1}, [None], [["x"]], 7])
def test_architectures_that_name_no_class(tmp_path, value):
    folder = make_hf(tmp_path / "m")
    change(folder, architectures=value)
    with pytest.raises(ModelError, match=r"architectures is .*expected the names of classes"):
        prepare(str(folder), str(tmp_path / "x.gguf"))


def test_sampling_defaults_that_no_sampler_takes(tmp_path):
    folder = make_hf(tmp_path / "m")
    said = {"temperature": -1, "top_p": "high", "top_k": 3.5, "min_p": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(said))
    told, keys = warnings_of(folder, tmp_path / "x.gguf")
    for name in ("temperature is -1", "top_p is 'high'", "top_k is 3.5"):
        assert any(name in line and "left out" in line for line in told), told
    assert [k for k in keys if "sampling" in k] == ["general.sampling.min_p"]


@pytest.mark.parametrize(
    ("tied", "has_head", "line"),
    [
        (True, True, "own head is used as it is stored"),
        (False, False, "the embedding is used for it"),
        (True, False, None),
        (False, True, None),
    ],
)
def test_heads_that_config_and_weights_disagree_on(tmp_path, tied, has_head, line):
    folder = make_hf(tmp_path / "m")
    stored = SafetensorsFile(folder / "model.safetensors").tensors
    weights = {n: t.read(slice(None)).reshape(t.shape).copy() for n, t in stored.items()}
    weights.pop("lm_head.weight", None)
    if has_head:
        weights["lm_head.weight"] = np.ones_like(weights["model.embed_tokens.weight"])
    save(folder, weights)
    change(folder, tie_word_embeddings=tied)
    told, _ = warnings_of(folder, tmp_path / "x.gguf")
    found = [text for text in told if "tie_word_embeddings" in text]
    assert (line in found[0]) if line else not found


@pytest.mark.parametrize("n_ctx", [10**12, 2**63, 10**30])
def test_a_context_beyond_memory_is_refused_at_load(tmp_path, n_ctx):
    path = make_tiny_llama(tmp_path / "t.gguf")
    with pytest.raises(UsageError, match=f"a context of {n_ctx} tokens takes"):
        ggq.load(path, n_ctx=n_ctx)


def test_a_rotation_whose_type_is_null(tmp_path):
    folder = make_hf(tmp_path / "m")
    change(folder, rope_scaling={"rope_type": None, "factor": 2.0})
    with pytest.raises(ModelError, match=r"rope_scaling\.rope_type.*None.*need a type"):
        prepare(str(folder), str(tmp_path / "x.gguf"))
    change(folder, rope_scaling={"rope_type": None})
    prepare(str(folder), str(tmp_path / "x.gguf")).close()


def test_rotations_of_kinds_of_layers_that_a_model_does_not_have(tmp_path):
    folder, full = make_hf(tmp_path / "m"), {"rope_type": "default", "rope_theta": 1e6}
    change(folder, rope_theta=1e6, rope_parameters={"full_attention": full, "other": full})
    prepare(str(folder), str(tmp_path / "x.gguf")).close()
    other = {**full, "rope_theta": 1e4}
    for kind in ("sliding_attention", "chunked_attention"):
        change(folder, rope_parameters={"full_attention": full, kind: other})
        with pytest.raises(ModelError, match=f"rope_parameters.{kind} is .*10000.0"):
            prepare(str(folder), str(tmp_path / "x.gguf"))


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{% for m in messages %}{{ m.content }}", "tokenizer.chat_template: line 1: "),
        (
            [{"name": "default", "template": "{{ x }}"}, {"name": "rag", "template": "{% if"}],
            "line",
        ),
        ("{{ messages[0].content }}", None),
    ],
)
def test_a_template_that_cannot_be_read(tmp_path, template, line):
    folder = make_hf(tmp_path / "m")
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**said, "chat_template": template}))
    told, _ = warnings_of(folder, tmp_path / "x.gguf")
    assert [text for text in told if "conversations with the file will be refused" in text] == [
        text for text in told if line and line in text and "chat_template" in text
    ]
    assert bool(line) == any("will be refused" in text for text in told), told
