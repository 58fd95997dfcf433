"""No setting of config.json is dropped: each field of every architecture's transformers config,
set to another legal value, gives transformers' logits or is refused by its name."""

import json

import numpy as np
import pytest
from configmutations import mutations, transformers_logits
from floats import distance
from hfmaker import LLAMA, make_hf
from tinyencoders import ENCODERS, make_encoder
from tinymodels import TINY, make_tiny

import ggq
from ggq import models
from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.converters.conversion import Options
from ggq.converters.prepare import prepare
from ggq.errors import ModelError
from ggq.gguf import open_gguf

TOLERANCE = 1e-3
ONE_OF_EACH = list({tiny.cls: tiny for tiny in reversed(TINY)}.values())  # class of transformers
CONFIG = {**LLAMA, "vocab_size": 384}


def converted_logits(folder, ids):
    """Return what the file made of a folder computes, by torch's back end and unwritten."""
    import torch

    from ggq.runtime.backends.torch.backend import TorchOps

    options = Options(check_tokenizer=False, force=True)
    with prepare(folder, folder / "x.gguf", "F32", options=options) as job:
        arch, hp = hparams_of(job)
        hp = hp.for_context(len(ids))
        with torch.inference_mode():
            ops = TorchOps(SourceWeights(job.tensors))
            return ops.step(lambda ops: arch.forward(ops, hp), ids).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("tiny", ONE_OF_EACH, ids=lambda t: t.label)
def test_every_setting_is_followed_or_refused(tiny, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    ids, _ = make_tiny(tiny, tmp_path)
    follow_or_refuse(tmp_path, ids, tiny.arch)


@pytest.mark.parametrize("label", ENCODERS)
def test_every_setting_of_an_encoder_is_followed_or_refused(label, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    make_encoder(label, tmp_path, "mean_tokens")
    follow_or_refuse(tmp_path, np.arange(5, 60), ENCODERS[label].arch)


def follow_or_refuse(tmp_path, ids, arch):
    """Convert a folder with each setting changed; what is not refused must be followed."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    tried, wrong = 0, []
    for label, changed in mutations(config):
        path.write_text(json.dumps(changed))
        want = transformers_logits(tmp_path, ids)
        if want is None:  # transformers has no such model, either
            continue
        tried += 1
        try:
            got = converted_logits(tmp_path, ids)
        except ModelError as error:
            assert any(w in str(error) for w in ("config.json: ", "tensor ", arch)), error
            continue
        if not distance(got, want) <= TOLERANCE:
            wrong.append(label)
    assert wrong == [] and tried > 10


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_act", "relu"),
        ("some_new_scale", 0.5),
        ("rope_scaling", {"rope_type": "ntk-by-parts", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "new_knob": 3}),
        ("rope_scaling", {"rope_type": "longrope", "factor": 2.0}),
    ],
)
def test_a_refusal_names_setting_and_value(setting, value):
    with pytest.raises(ModelError, match=r"^config\.json: ") as error:
        models.for_hf(CONFIG).hparams({**CONFIG, setting: value})
    name = setting if not isinstance(value, dict) else "rope_parameters."
    assert name in str(error.value) and " is " in str(error.value)


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_what_is_off_is_no_setting(value):
    models.for_hf(CONFIG).hparams({**CONFIG, "some_new_thing": value})


def test_names_of_programs_and_training_are_no_settings():
    extra = {"is_llama_config": True, "attention_dropout": 0.1, "_name_or_path": "x"}
    models.for_hf(CONFIG).hparams({**CONFIG, **extra, "transformers.js_config": {"dtype": "q4"}})


def test_yarn_without_a_factor_spans_the_contexts():
    rope = {"rope_type": "yarn", "original_max_position_embeddings": 64}
    hp = models.for_hf(CONFIG).hparams({**CONFIG, "rope_scaling": rope})
    assert hp.rope.factor == CONFIG["max_position_embeddings"] / 64


def test_magnitudes_of_yarn_stand_in_the_file(tmp_path):
    folder = make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=64)
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
    config["rope_scaling"] = rope | {"attention_factor": 0.7}
    (folder / "config.json").write_text(json.dumps(config))
    (path,) = ggq.convert(folder, tmp_path / "x.gguf", type="F32")
    with open_gguf(path) as file:
        found = file.get("llama.rope.scaling.attn_factor", type=float)
        assert "llama.rope.scaling.yarn_attn_factor" not in file.metadata
    assert found * (1 + 0.1 * np.log(8)) == pytest.approx(0.7, rel=1e-6)
