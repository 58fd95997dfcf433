"""No setting of config.json is dropped: each field of every architecture's transformers config,
set to another legal value, gives transformers' logits or is refused by its name."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from configmutations import mutations, transformers_logits
from floats import distance
from hfmaker import LLAMA, make_hf, save
from tinyencoders import ENCODERS, make_encoder
from tinymodels import TINY, make_tiny

import ggq
from ggq import models
from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.converters.conversion import Options
from ggq.converters.export import hf_config
from ggq.converters.prepare import prepare
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import ModelError
from ggq.gguf import open_gguf

TOLERANCE = 1e-3
OWN = [tiny for tiny in TINY if not tiny.remade and not tiny.twin]
OTHERS = [tiny for tiny in TINY if tiny.remade and not tiny.alibi]
ONE_OF_EACH = list({(t.arch, t.cls): t for t in reversed(OWN)}.values())  # and of its classes
LONG = {  # of many settings or layers: their tests are two
    *("afmoe", "baichuan", "deepseek2", "deepseek3", "dots1", "falcon h1", "gemma3n", "gemma4"),
    *("glm4 lite", "nemotron_h", "qwen35moe", "qwen3next"),
}
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


def in_parts(models):
    """Return the parameters of a test: each model and which of how many parts of its settings."""
    return [
        pytest.param(tiny, part, id=f"{tiny.label} {part[0] + 1} of {part[1]}")
        for tiny in models
        for part in ([(0, 2), (1, 2)] if tiny.label in LONG else [(0, 1)])
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("tiny", "part"), in_parts(ONE_OF_EACH))
def test_every_setting_is_followed_or_refused(tiny, part, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    ids, _ = make_tiny(tiny, tmp_path)
    follow_or_refuse(tmp_path, ids, tiny.arch, part=part)


@pytest.mark.slow
@pytest.mark.parametrize(("tiny", "part"), in_parts(OTHERS))
def test_every_setting_of_a_class_that_transformers_lacks(tiny, part, tmp_path):
    """It is computed by the class that the tiny model is remade from."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    (tmp_path / "hf").mkdir()
    make_tiny(tiny, tmp_path)
    ids, _ = make_tiny(replace(tiny, remade=None), tmp_path / "hf")
    follow_or_refuse(tmp_path / "hf", ids, tiny.arch, tiny.remade, part)


@pytest.mark.parametrize("label", [e.label for e in ENCODERS.values() if not e.twin])
def test_every_setting_of_an_encoder_is_followed_or_refused(label, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    make_encoder(label, tmp_path, "mean_tokens")
    follow_or_refuse(tmp_path, np.arange(5, 60), ENCODERS[label].arch)


def follow_or_refuse(folder, ids, arch, remade=None, part=(0, 1)):
    """Convert a folder with each setting changed; what is not refused must be followed.

    ``remade``: what makes of its settings those of the folder above it, which is converted then;
    ``part``: (number, of how many) parts of the changes.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    path, own = folder / "config.json", folder.parent if remade else folder
    config = json.loads(path.read_text())
    tried, wrong = 0, []
    for label, changed in list(mutations(config))[part[0] :: part[1]]:
        path.write_text(json.dumps(changed))
        if remade and not renew(own, remade, config, changed):
            continue
        tried += 1
        try:
            got = converted_logits(own, ids)
        except ModelError as error:
            named = ("config.json: ", ".weight", arch, "not supported")
            assert any(w in str(error) for w in named), error
            continue
        want = transformers_logits(folder, ids)
        if want is None:  # transformers has no such model, either
            continue
        if not distance(got, want) <= TOLERANCE:
            wrong.append(label)
    assert wrong == [] and tried > 10 / part[1]


# Models that transformers has no class of: their own twins check them (tests/*_twin.py).
TWINS = {"deci", "smallthinker"}


def renew(folder, remade, config, changed):
    """Write what ``changed`` is remade to; return whether the change can be seen in it."""
    tensors = tensors_of(folder / "hf")
    before, after = (remade(tensors, copy.deepcopy(c))[1] for c in (config, changed))
    (folder / "config.json").write_text(json.dumps(after))
    return before != after


def test_no_architecture_is_left_out():
    named = {tiny.arch for tiny in (*ONE_OF_EACH, *OTHERS)} | set(ENCODERS) | TWINS
    assert {arch.name for arch in models.all_architectures()} <= named


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_act", "relu"),
        ("some_new_scale", 0.5),
        ("rope_scaling", {"rope_type": "ntk-by-parts", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "new_knob": 3}),
        ("rope_scaling", {"rope_type": "longrope", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "default", "partial_rotary_factor": 0.5}),
        ("rope_scaling", {"rope_type": "linear", "factor": [2]}),
        ("rope_scaling", {"rope_type": "linear", "factor": 0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "mscale": "1"}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "attention_factor": "x"}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 2.0, "truncate": "false"}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8, "low_freq_factor": 0}),
        ("rope_scaling", {"rope_type": "longrope", "long_factor": [0] * 8}),
    ],
)
def test_a_refusal_names_setting_and_value(setting, value):
    with pytest.raises(ModelError, match=r"^config\.json: ") as error:
        models.for_hf(CONFIG).hparams({**CONFIG, setting: value})
    name = setting if not isinstance(value, dict) else "rope_parameters."
    assert name in str(error.value) and " is " in str(error.value)


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}  # fmt: skip
WHOLE = {
    "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32, "truncate": False,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 3.0, 4.0, 5.0],
    "attention_factor": 1.3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rope", "tensor"),
    [(LLAMA3, "rope_freqs"), (WHOLE, "rope_freqs"), (LONG, "rope_factors_long")],
    ids=["llama3", "yarn", "longrope"],
)
@pytest.mark.parametrize("cls", ["Qwen3", "Llama"])
def test_stored_rotations_of_any_architecture(cls, rope, tensor, tmp_path):
    """Files say them in tensors; where llama.cpp has none of that name, a line says so."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "head_dim": 8}
    named = {"architectures": [f"{cls}ForCausalLM"], "model_type": cls.lower()}
    folder = make_hf(tmp_path / "hf", **sizes, **named, rope_scaling=rope)
    if cls == "Qwen3":
        add_head_norms(folder, 8)
    job = prepare(folder, tmp_path / "x.gguf", "F32", options=Options(check_tokenizer=False))
    with job:
        names, notes = set(job.tensors), " ".join(job.warnings)
        job.run()
    assert f"{tensor}.weight" in names
    assert (f"{tensor}.weight" in notes and "llama.cpp" in notes) == (cls == "Qwen3")
    with open_gguf(tmp_path / "x.gguf") as file:
        arch = models.get(cls.lower())
        exported = hf_config(file, arch, arch.hparams(file), "F32")
    if rope is LONG:
        assert exported["rope_scaling"] == {k: v for k, v in rope.items() if k != "factor"}


WIDE = {**LONG, "short_factor": [1.0, 1.5] * 4, "long_factor": [float(i) for i in range(1, 9)]}


@pytest.mark.parametrize("rope", [None, WIDE, WHOLE], ids=["plain", "longrope", "yarn"])
def test_rotations_are_as_exact_as_the_cache(rope, tmp_path):
    """With a cache in float32: what F16 rounds makes 1e-3 of the logits' range here."""
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16}
    folder = make_hf(tmp_path / "hf", **sizes, rope_scaling=rope)
    held, ids = tensors_of(folder), list(range(5, 150))
    sharp = {n: 6 * t for n, t in held.items() if n.endswith(("q_proj.weight", "k_proj.weight"))}
    save(folder, held | sharp)
    with prepare(folder, tmp_path / "x.gguf", "F32", options=Options(check_tokenizer=False)) as job:
        job.run()
    with ggq.load(tmp_path / "x.gguf", n_ctx=160, threads=1, cache_type="f32") as model:
        assert distance(np.array(model.logits(ids)), transformers_logits(folder, ids)) < 1e-4


def tensors_of(folder):
    file = SafetensorsFile(folder / "model.safetensors")
    held = {n: t.read(slice(None)).reshape(t.shape).copy() for n, t in file.tensors.items()}
    file.close()
    return held


def add_head_norms(folder, width):
    held = tensors_of(folder)
    norms = {f"{n.rpartition('.self_attn.')[0]}.self_attn.{p}_norm.weight" for n in held
             if ".self_attn." in n for p in "qk"}  # fmt: skip
    save(folder, held | dict.fromkeys(norms, np.ones(width, np.float32)))


@pytest.mark.parametrize("scaling", ["linear", [1], {"rope_type": "linear", "factor": 2.0}])
def test_two_rotations_and_those_that_are_no_objects_are_refused(scaling):
    both = {"rope_parameters": {"rope_type": "default"}, "rope_scaling": scaling}
    with pytest.raises(ModelError, match=r"^config\.json: rope_scaling"):
        models.for_hf(CONFIG).hparams({**CONFIG, **both})


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


@pytest.mark.parametrize(
    ("cls", "settings", "refused"),
    [
        ("Qwen2", {"max_window_layers": 2}, False),
        ("Qwen2", {"max_window_layers": 1}, True),
        ("Qwen2", {}, False),  # the first 28 have none
        ("Qwen2", {"max_window_layers": 0, "layer_types": 2 * ["full_attention"]}, False),
        ("Qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, True),
        ("Qwen3", {"max_window_layers": 99}, False),
        ("Qwen3", {"max_window_layers": "2"}, True),
        ("Qwen2Moe", {"max_window_layers": 0}, False),  # there it is where they end
        ("Qwen2Moe", {"max_window_layers": 2}, True),
        ("Qwen3Moe", {"max_window_layers": 99}, True),  # all layers, whatever it says
        ("Dots1", {"max_window_layers": 2}, False),
        ("Dots1", {"max_window_layers": 1, "use_sliding_window": False}, True),  # no such switch
        ("SmolLM3", {}, False),  # the fourth is the first without positions
        ("SmolLM3", {"num_hidden_layers": 4}, True),
    ],
)
def test_a_window_that_no_layer_has_is_no_matter(cls, settings, refused):
    used = {"num_hidden_layers": 2, "use_sliding_window": True, "sliding_window": 8}
    arch = models.for_hf({"architectures": [f"{cls}ForCausalLM"]})
    try:
        found = list(arch.conflicts({**used, **settings}))
    except ModelError as error:
        assert "max_window_layers" in str(error)
        found = [error]
    assert bool(found) == refused
