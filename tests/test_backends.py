"""Whole models on the reference and torch back ends: equal to each other and to transformers."""

from contextlib import ExitStack

import numpy as np
import pytest
from floats import distance, float_weights
from ggufmaker import make_tiny_llama

import ggq
from ggq import models
from ggq.converters.convert import convert
from ggq.errors import ModelError
from ggq.gguf import open_gguf
from ggq.runtime.backends import reference
from ggq.runtime.engine.weights import Weights

TOLERANCE = 1e-4
TOKENS = 40  # beyond the original context of the scaled configurations


@pytest.fixture
def torch_back_end():
    pytest.importorskip("torch")
    from ggq.runtime.backends.torch import backend as torch

    return torch


@pytest.fixture
def ids(rng):
    return rng.integers(3, 90, TOKENS)


# --- tiny GGUF files ---

FILES = {
    "untied": {},
    "tied": {"tied": True},
    "wide heads": {"head_dim": 32, "n_head_kv": 1},
    "factors": {"rope_factors": True, "tied": True},
    "linear": {"metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}},
    "yarn": {
        "metadata": {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 16,
        }
    },
}


@pytest.fixture
def tiny_model(tmp_path):
    """Write tiny models; return hyper-parameters and weights. The files close at the end."""
    with ExitStack() as opened:

        def make(**settings):
            path = make_tiny_llama(tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf", **settings)
            file = opened.enter_context(open_gguf(path))
            return models.get("llama").hparams(file), Weights(file)

        yield make


@pytest.mark.parametrize("settings", FILES.values(), ids=FILES)
def test_reference_and_torch_agree_on_a_file(settings, tiny_model, ids, torch_back_end):
    hp, weights = tiny_model(**settings)
    want = reference.logits(weights, hp, ids)
    assert want.shape == (TOKENS, hp.n_vocab)
    assert distance(torch_back_end.logits(weights, hp, ids), want) <= TOLERANCE


@pytest.mark.parametrize("settings", FILES.values(), ids=FILES)
def test_reference_and_numba_agree_on_a_file(settings, tmp_path, ids):
    path = make_tiny_llama(tmp_path / "tiny.gguf", **settings)
    with ggq.load(path, cache_type="f32", threads=2) as model:
        want = reference.logits(Weights(model.gguf), model.hparams, ids)
        assert distance(model.logits(ids), want) <= TOLERANCE
        session = model.session()
        last = [session.evaluate(part) for part in np.split(ids, [17, 18])]
        assert distance(last, want[[16, 17, -1]]) <= TOLERANCE


def test_scaling_settings_change_the_logits(tiny_model, ids):
    scalings = ("untied", "linear", "yarn")
    plain, linear, yarn = (
        reference.logits(*reversed(tiny_model(**FILES[s])), ids) for s in scalings
    )
    assert distance(plain, linear) > 1e-2
    assert distance(linear, yarn) > 1e-2


def test_sequences_in_steps_equal_one_pass(tiny_model, ids, torch_back_end):
    hp, weights = tiny_model()
    want = reference.logits(weights, hp, ids)
    for ops in (reference.ReferenceOps(weights), torch_back_end.TorchOps(weights)):
        parts = [ops.evaluate(hp, part) for part in np.split(ids, [17, 18])]
        assert distance(np.concatenate(parts), want) <= TOLERANCE
        again = ops.evaluate(hp, ids[:3], last_only=True)
        assert again.shape == (1, hp.n_vocab)
        assert distance(again, want[2:3]) > 1e-2  # three more tokens, not a fresh sequence


def test_batch_of_windows_equals_each_alone(tiny_model, ids, torch_back_end):
    hp, weights = tiny_model()
    windows = ids.reshape(4, -1)
    ops = torch_back_end.TorchOps(weights)
    got = ops.evaluate(hp, windows)
    for window, rows in zip(windows, got, strict=True):
        assert distance(rows, reference.logits(weights, hp, window)) <= TOLERANCE
    ops.reset()
    last = ops.evaluate(hp, windows, last_only=True)
    assert last.shape == (4, 1, hp.n_vocab)
    assert distance(last, got[:, -1:]) <= 1e-5


def test_missing_tensor_is_named(tiny_model, ids):
    hp, weights = tiny_model()
    weights = {name: weights[name] for name in weights if name != "blk.1.ffn_up.weight"}
    with pytest.raises(ModelError, match=r"no tensor blk\.1\.ffn_up\.weight"):
        reference.logits(weights, hp, ids)


# --- what calibration and training ask of torch ---


@pytest.fixture(params=["reference", "torch"])
def eager(request):
    """Return the class of a back end that computes at once."""
    if request.param == "reference":
        return reference.ReferenceOps
    return request.getfixturevalue("torch_back_end").TorchOps


def test_listener_sees_every_linear_input(tiny_model, ids, eager):
    hp, weights = tiny_model()
    ops = eager(weights)
    seen = {}
    stop = ops.on_linear_input(lambda name, x: seen.setdefault(name, np.asarray(x)))
    logits = ops.evaluate(hp, ids)
    arch = models.get("llama")
    matrices = {n for n, row, _ in arch.rows(hp) if row.input and n in weights}
    assert set(seen) == matrices
    assert (
        distance(seen["output.weight"] @ weights["output.weight"].dequantized().T, logits) <= 1e-6
    )
    q, k = (seen[f"blk.1.attn_{n}.weight"] for n in "qk")
    assert np.array_equal(q, k)
    stop()
    seen.clear()
    ops.reset()
    assert distance(ops.evaluate(hp, ids), logits) <= 1e-6
    assert seen == {}


def test_replaced_tensor_is_used_until_released(tiny_model, ids, torch_back_end):
    hp, weights = tiny_model()
    ops = torch_back_end.TorchOps(weights)
    before = ops.evaluate(hp, ids)
    ops.replace("output.weight", 2 * ops.tensor("output.weight"))
    ops.reset()
    assert distance(ops.evaluate(hp, ids), 2 * before) <= 1e-6
    ops.release(["output.weight"])
    ops.reset()
    assert distance(ops.evaluate(hp, ids), before) <= 1e-6


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "blk.1.ffn_norm.weight"])
def test_gradient_equals_a_difference_of_the_reference(name, tiny_model, ids, rng, torch_back_end):
    hp, weights = tiny_model()
    ops = torch_back_end.TorchOps(weights)
    weight = ops.tensor(name).clone().requires_grad_()
    ops.replace(name, weight)
    readout = rng.standard_normal((TOKENS, hp.n_vocab))
    logits = ops.evaluate(hp, ids)
    (logits * logits.new_tensor(readout)).sum().backward()
    direction = rng.standard_normal(weight.shape)
    sides = []
    for step in (1e-5, -1e-5):
        twin = reference.ReferenceOps(weights)
        twin.array(name)[...] += step * direction
        sides.append((twin.evaluate(hp, ids) * readout).sum())
    want = (sides[0] - sides[1]) / 2e-5
    assert float((weight.grad.numpy() * direction).sum()) == pytest.approx(want, rel=1e-3)


def test_torch_computes_nothing_that_mps_lacks(tiny_model, ids, torch_back_end):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    banned = {torch.float64, torch.complex64, torch.complex128, torch.uint16, torch.uint32}
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            seen.update(t.dtype for t in (*args, out) if isinstance(t, torch.Tensor))
            return out

    hp, weights = tiny_model(**FILES["yarn"])
    with Watch():
        torch_back_end.TorchOps(weights).evaluate(hp, ids)
    assert torch.float32 in seen
    assert seen & banned == set()


# --- transformers as a second opinion ---

TINY = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}
SCALED = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CONFIGS = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 32, "num_key_value_heads": 1},
    "base": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "linear": {"rope_parameters": SCALED | {"rope_type": "linear"}},
    "llama3": {"rope_parameters": SCALED | LLAMA3},
    "yarn": {"rope_parameters": SCALED | {"rope_type": "yarn"}},
}


def adjacent_pairs(x, n_head):
    """Return q or k rows reordered from HF's half-split pairs to llama.cpp's adjacent pairs."""
    return x.reshape(n_head, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def from_transformers(model, config):
    """Return hyper-parameters and weights of a transformers model by ggq's tensor table."""
    arch = models.for_hf(config)
    hp = arch.hparams(config)
    state = {name: t.numpy() for name, t in model.state_dict().items()}
    heads = {"permute_q": hp.n_head, "permute_k": hp.n_head_kv}
    arrays = {}
    for name, row, layer in arch.rows(hp):
        source = arch.sources(row, hp, layer)
        if source and source[0] in state:
            x = state[source[0]]
            arrays[name] = adjacent_pairs(x, heads[row.transform]) if row.transform in heads else x
    if config["rope_parameters"]["rope_type"] == "llama3":
        plain = hp.rope.base ** (-2.0 * np.arange(hp.rope.dims // 2) / hp.rope.dims)
        arrays["rope_freqs.weight"] = plain / model.model.rotary_emb.inv_freq.numpy()
    if config["tie_word_embeddings"]:
        del arrays["output.weight"]
    return hp, float_weights(arrays)


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_equals_transformers(settings, ids, torch_back_end):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.LlamaConfig(**TINY | settings, architectures=["LlamaForCausalLM"])
    model = transformers.LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for p in model.parameters():  # larger than the usual start: scores that matter, biases
            p.copy_(torch.randn_like(p) * (0.2 if p.dim() > 1 else 0.5) + (p.dim() == 1))
        want = model(torch.as_tensor(ids)[None]).logits[0].numpy()
    hp, weights = from_transformers(model, config.to_dict())
    assert distance(reference.logits(weights, hp, ids), want) <= TOLERANCE
    assert distance(torch_back_end.logits(weights, hp, ids), want) <= TOLERANCE


@pytest.mark.parametrize("name", ["minimind2", "stories15M"])
def test_converted_model_equals_transformers(name, shared_dir, tmp_path, rng, torch_back_end):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    source = shared_dir / "models" / name
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    ids = rng.integers(0, model.config.vocab_size, 64)
    with torch.no_grad():
        want = model(torch.as_tensor(ids)[None]).logits[0].numpy()
    (path,) = convert(source, tmp_path / "model.gguf", "F32")
    with open_gguf(path) as file:
        hp = models.get(file.metadata["general.architecture"]).hparams(file)
        assert distance(torch_back_end.logits(Weights(file), hp, ids), want) <= TOLERANCE
