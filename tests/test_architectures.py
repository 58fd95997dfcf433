"""Every architecture end to end: a tiny random transformers model, converted, on every back end.

The models differ in data only; each has what its architecture is known for, and inputs that cross
its window and its original context.
"""

import json
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from floats import distance
from hfmaker import save
from tinyencoders import ENCODERS
from tinymodels import TINY, make_tiny
from tools.architecture_table import ROOT, updated

from ggq import models
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.tensors import hf_tensors
from ggq.converters.convert import convert
from ggq.converters.export import export
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import ModelError
from ggq.gguf import open_gguf
from ggq.runtime.backends import reference
from ggq.runtime.engine.weights import Weights

TOLERANCE = 1e-3
MAX_KL = 0.02  # of the median token: with random weights some routers are nearly tied


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes a tiny model: (HF folder, GGUF path, ids, logits); cached."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    done = {}

    def make(tiny):
        if tiny.label not in done:
            folder = tmp_path_factory.mktemp(tiny.label.replace(" ", "-"))
            ids, want = make_tiny(tiny, folder)
            (path,) = convert(folder, folder / "model.gguf", "F32")
            done[tiny.label] = folder, path, ids, want
        return done[tiny.label]

    return make


def by_numba(path, ids, n_ctx, kind="f32"):
    from ggq.runtime.engine.devices import CPU
    from ggq.runtime.engine.engine import Engine

    with open_gguf(path) as file:
        arch = models.get(file.metadata["general.architecture"])
        hp = arch.hparams(file).for_context(n_ctx)
        arch.check(file, hp)
        engine = Engine(hp, CPU.backend(arch, hp, file, n_ctx=n_ctx, cache_type=kind, threads=1))
        sequence = engine.sequence()
        first = engine.evaluate(sequence, ids[:-3], every=True)
        rest = [engine.evaluate(sequence, ids[i : i + 1]) for i in range(len(ids) - 3, len(ids))]
        engine.close()
    return np.concatenate([first, rest])


@pytest.mark.parametrize("tiny", TINY, ids=lambda t: t.label)
def test_back_ends_agree_with_transformers(tiny, made):
    _, path, ids, want = made(tiny)
    with open_gguf(path) as file:
        assert file.metadata["general.architecture"] == tiny.arch
        hp = models.get(tiny.arch).hparams(file).for_context(tiny.n_ctx)
        weights = Weights(file)
        assert distance(reference.logits(weights, hp, ids), want) <= TOLERANCE
        from ggq.runtime.backends.torch import backend as torch

        assert distance(torch.logits(weights, hp, ids), want) <= TOLERANCE
    assert distance(by_numba(path, ids, tiny.n_ctx), want) <= TOLERANCE


@pytest.mark.parametrize("tiny", TINY, ids=lambda t: t.label)
def test_every_tensor_is_consumed_once_and_known(tiny, made):
    folder, path, _, _ = made(tiny)
    checkpoint = Checkpoint(folder)
    arch = models.for_hf(checkpoint.config)
    hp = arch.hparams(checkpoint.config)
    tensors, skipped = hf_tensors(checkpoint, arch, hp)
    used = [p.name for t in tensors for p in getattr(t, "parts", ())]
    assert set(used) | set(skipped) == set(checkpoint.tensors)
    assert all("visual." in n for n in skipped)
    named = Counter(n for _, row, i in arch.rows(hp) for n in sources(arch, row, hp, i))
    assert all(used.count(n) == named[bare(n)] for n in used)
    known = {name for name, _, _ in arch.rows(hp)}
    with open_gguf(path) as file:
        assert set(file.tensors) <= known
        assert rounded(arch.hparams(file)) == rounded(hp)
        arch.check(file, hp)


def sources(arch, row, hp, layer):
    """Return the names in a checkpoint, without prefix, that a row may be made of."""
    names = {*arch.sources(row, hp, layer)}
    return {
        bare(n)
        for n in (
            names | {arch.placed(row.fused[0].format(i=layer), hp, layer)} if row.fused else names
        )
    }


def bare(name):
    return name.removeprefix("model.").removeprefix("language_model.")


def rounded(hp):
    """Return hyper-parameters as a file holds them, in float32."""

    def short(value):
        if isinstance(value, dict):
            return {k: short(v) for k, v in value.items()}
        if isinstance(value, tuple):
            return tuple(map(short, value))
        return np.float32(value) if isinstance(value, float) else value

    return short(asdict(hp))


@pytest.mark.parametrize("tiny", [t for t in TINY if t.peer], ids=lambda t: t.label)
def test_llama_cpp_reads_the_file_alike(tiny, made, shared_dir, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.syspath_prepend(shared_dir / "tools")
    from peer import Peer

    _, path, ids, want = made(tiny)
    engine = Peer(str(path), n_ctx=tiny.n_ctx, threads=1)
    try:
        assert distance(engine.logits(list(ids)), want) <= tiny.peer
    finally:
        engine.close()


RENAMED = {
    "inside a model with images": lambda n: n.replace("model.", "model.language_model.", 1),
    "beside other parts": lambda n: f"language_model.{n}",
}


@pytest.mark.parametrize("label", ["gemma3", "mistral3", "qwen35"])
@pytest.mark.parametrize("rename", RENAMED.values(), ids=RENAMED)
def test_text_model_inside_another(label, rename, made):
    tiny = next(t for t in TINY if t.label == label)
    checkpoint = Checkpoint(made(tiny)[0])
    arch = models.get(tiny.arch)
    inner = next(c for c in arch.hf_classes if "Conditional" in c)
    config = {"architectures": [inner], "text_config": checkpoint.config, "vision_config": {}}
    assert models.for_hf(config) is arch
    hp = arch.hparams(config)
    assert hp == arch.hparams(checkpoint.config)
    plain, _ = hf_tensors(checkpoint, arch, hp)
    checkpoint.tensors = {
        rename(n): replace(t, name=rename(n)) for n, t in checkpoint.tensors.items()
    }
    checkpoint.tensors["model.visual.patch_embed.weight"] = None
    nested, skipped = hf_tensors(checkpoint, arch, hp)
    assert [t.name for t in nested] == [t.name for t in plain]
    assert skipped == ["model.visual.patch_embed.weight"]


def test_stacked_experts_give_the_same_file(made):
    tiny = next(t for t in TINY if t.label == "qwen3moe")
    checkpoint = Checkpoint(made(tiny)[0])
    arch = models.get(tiny.arch)
    hp = arch.hparams(checkpoint.config)
    want, _ = hf_tensors(checkpoint, arch, hp)
    stack_experts(checkpoint, hp)
    got, skipped = hf_tensors(checkpoint, arch, hp)
    assert skipped == [] and [(t.name, t.shape) for t in got] == [(t.name, t.shape) for t in want]
    for a, b in zip(got, want, strict=True):
        if "_exps." in a.name:
            n = a.shape[1]
            np.testing.assert_array_equal(a.read(n, 2 * n), b.read(n, 2 * n))


def stack_experts(checkpoint, hp):
    """Put each layer's experts into the two tensors that newer checkpoints have."""

    def take(layer, e, name):
        n = f"model.layers.{layer}.mlp.experts.{e}.{name}_proj.weight"
        return checkpoint.tensors.pop(n).read(slice(None))

    arrays = {}
    for i in range(hp.n_layer):
        gates, ups, downs = (
            [take(i, e, name) for e in range(hp.n_expert)] for name in ("gate", "up", "down")
        )
        pairs = [np.concatenate(pair) for pair in zip(gates, ups, strict=True)]
        arrays[f"model.layers.{i}.mlp.experts.gate_up_proj"] = np.stack(pairs)
        arrays[f"model.layers.{i}.mlp.experts.down_proj"] = np.stack(downs)
    folder = checkpoint.folder / "stacked"
    folder.mkdir()
    save(folder, arrays)
    checkpoint.tensors |= SafetensorsFile(folder / "model.safetensors").tensors


@pytest.mark.parametrize("tiny", TINY, ids=lambda t: t.label)
def test_q8_0_stays_close(tiny, made):
    _, path, ids, want = made(tiny)
    small = path.with_name("q8_0.gguf")
    if not small.exists():
        convert(path, small, "Q8_0")
    p, q = (log_softmax(x) for x in (want, by_numba(small, ids, tiny.n_ctx)))
    kl = (np.exp(p) * (p - q)).sum(-1)
    assert np.median(kl) <= MAX_KL and kl.mean() <= 10 * MAX_KL


def log_softmax(x):
    x = x.astype(np.float64) - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_every_architecture_has_a_tiny_model():
    assert {t.arch for t in TINY} | {e.arch for e in ENCODERS.values()} == {
        a.name for a in models.all_architectures()
    }


def test_readme_table_is_in_step():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert updated(text) == text, "run python tests/tools/architecture_table.py"


def test_config_alone_names_the_architecture(made):
    for tiny in TINY:
        config = json.loads((made(tiny)[0] / "config.json").read_text())
        assert models.for_hf(config).name == tiny.arch


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_importance_is_measured_expert_by_expert(backend, made, tmp_path):
    from ggq.converters.calibration.importance import collect
    from ggq.converters.calibration.text import Calibration
    from ggq.converters.prepare import prepare

    tiny = next(t for t in TINY if t.label == "qwen3moe")
    folder, _, ids, _ = made(tiny)
    job = prepare(folder, tmp_path / "x.gguf", "F32")
    sums = collect(job, Calibration(ids[None, :32], "ids"), backend=backend)
    for name in ("gate", "up", "down"):
        full = f"blk.0.ffn_{name}_exps.weight"
        assert sums.squares[full].shape == (7, job.tensors[full].shape[2])
        assert sums.counts[full].sum() == 32 * 3  # every token at three of them
    assert sums.imatrix().slice_for(full, job.tensors[full].shape, 6) is not None


@pytest.mark.parametrize("tiny", TINY, ids=lambda t: t.label)
def test_export_gives_transformers_the_same_model(tiny, made, tmp_path):
    import torch
    import transformers

    _, path, ids, want = made(tiny)
    if not (models.get(tiny.arch).exports and tiny.exports):
        with pytest.raises(ModelError, match=f"{tiny.arch}: writing it .*is not supported"):
            export(path, tmp_path / "hf", "f32")
        return
    folder = export(path, tmp_path / "hf", "f32")
    model, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    config = Checkpoint(folder).config
    with open_gguf(path) as file:
        if models.for_hf(config).name == tiny.arch:  # others are written as their text model
            again = models.for_hf(config).hparams(config)
            assert rounded(again) == rounded(models.get(tiny.arch).hparams(file))
    with torch.no_grad():
        got = model.eval()(torch.as_tensor(ids)[None]).logits[0].numpy()
    assert distance(got, want) <= TOLERANCE
