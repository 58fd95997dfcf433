"""Pre-passes on models of other kinds: biases, norms of heads, shared keys, experts, odd widths."""

import numpy as np
import pytest
from hfmaker import TEXT, make_hf
from tinymodels import TINY, make_tiny

from ggq import quants
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.converters.prepasses.base import Packed, Replaced, parse
from ggq.converters.prepasses.solving.hessian import damped, layer_error
from ggq.errors import ModelError

# What a label stands for: bias and ties, norms of heads, no own keys and values, matrices of
# heads, experts behind one norm.
LABELS = ("qwen2 tied", "qwen3", "gemma4 e", "deepseek2 lite", "mixtral")


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
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    make_tiny(next(t for t in TINY if t.label == request.param), folder)
    return folder


def prepared(folder, kind="Q4_K_S"):
    return prepare(folder, folder / "x.gguf", kind, options=Options(force=True))


def logits(job, ids):
    from ggq.converters.calibration.weights import SourceWeights, hparams_of
    from ggq.runtime.backends.torch.backend import logits

    return logits(SourceWeights(job.tensors), hparams_of(job)[1], ids)


def divergence(want, found):
    """Return the mean KL divergence of logits (..., n_vocab)."""
    from ggq.runtime.measure.evaluation import log_softmax

    a, b = (log_softmax(x.reshape(-1, x.shape[-1])) for x in (want, found))
    return (np.exp(a) * (a - b)).sum(-1).mean()


def ids_of(job, text):
    """Return windows of the text that calibration does not take."""
    from ggq.converters.calibration.text import calibrate

    return calibrate(job, text, 64).windows[1:90:10]


def test_gptq_lowers_the_divergence(model, text):
    made = parse("gptq:tokens=2048,sweeps=0,n_ctx=128", calibration=str(text))
    with prepared(model) as plain, prepared(model) as solved:
        told = len(solved.warnings)
        ids = ids_of(plain, text)
        want = logits(plain, ids)
        made(solved)
        assert not solved.warnings[told:]
        types = dict(plain.plan.types)
        for name, tensor in plain.tensors.items():
            if isinstance(solved.tensors[name], Packed):
                assert solved.tensors[name].type_name == types[name]
                plain.tensors[name] = Rounded(tensor, types[name])
        before, after = (divergence(want, logits(job, ids)) for job in (plain, solved))
    assert after < 0.8 * before


class Rounded:
    """A tensor as the plain search leaves it."""

    def __init__(self, tensor, type_name):
        from ggq.converters.prepasses.folds import whole

        kind = quants.get(type_name)
        self.name, self.shape, self.type_name = tensor.name, tensor.shape, type_name
        self.values = kind.dequantize(kind.quantize(np.ascontiguousarray(whole(tensor))))

    def read(self, start, stop):
        return self.values[start:stop]


@pytest.mark.parametrize("name", ["awq:grid=3", "smooth:grid=2"])
def test_folds_leave_the_logits_as_they_are(model, text, name):
    made = parse(f"{name},tokens=512,n_ctx=128", calibration=str(text))
    with prepared(model) as job:
        told = len(job.warnings)
        ids = ids_of(job, text)
        before = logits(job, ids)
        made(job)
        after = logits(job, ids)
        for warning in job.warnings[told:]:
            assert "would change the model" in warning or "is not folded" in warning
    assert any(made.chosen.values())
    np.testing.assert_allclose(after, before, atol=5e-5 * np.abs(before).max())


@pytest.mark.parametrize("tiny", TINY, ids=lambda t: t.label)
def test_every_fold_of_the_table_is_exact(tiny, tmp_path, rng):
    """Any scale may move to the producer that the table names: the model computes the same."""
    pytest.importorskip("transformers")
    from ggq.converters.calibration.weights import hparams_of
    from ggq.converters.prepasses.folds import apply, find_folds

    ids, _ = make_tiny(tiny, tmp_path)
    ids = ids[:40]
    with prepared(tmp_path) as job:
        before = logits(job, ids)
        arch, hp = hparams_of(job)
        folds = find_folds(job, arch, hp)
        named = any(row.absorbs and row.per_layer for _, row, _ in arch.rows(hp))
        for fold in folds:
            columns = job.tensors[fold.consumers[0]].shape[-1]
            fold.scale = fold.tied(rng.lognormal(0, 0.5, columns))
        apply(job, folds)
        after = logits(job, ids)
    assert folds or not named
    np.testing.assert_allclose(after, before, atol=5e-5 * np.abs(before).max())


@pytest.mark.parametrize("width", [96, 576])
@pytest.mark.parametrize("name", ["imatrix", "awq:grid=4", "smooth:grid=2", "gptq:sweeps=0"])
def test_alone_no_pass_raises_the_error_of_rounding(tmp_path, text, width, name):
    """Odd widths, that fall back to blocks of 32: outputs on the calibration inputs."""
    torch = pytest.importorskip("torch")
    folder = make_hf(
        tmp_path / "hf", hidden_size=width, intermediate_size=width, num_hidden_layers=1
    )
    seen = {}
    with prepared(folder) as job:
        made = parse(f"{name},tokens=2048,n_ctx=128".replace("x,", "x:"), calibration=str(text))
        inputs(job, text, seen)
        made(job)
        out = job.run()[0]
        types = dict(job.plan.types)
        original = {n: np.array(t.read(0, t.shape[0])) for n, t in job.original.items()}
        # The folded scale of a column: what the float tensor grew by.
        grown = {n: scale_of(job.tensors[n], original[n]) for n in seen}
    from ggq.gguf import open_gguf

    before = after = 0.0
    with open_gguf(out) as file:
        for tensor, h in seen.items():
            kind, w = quants.get(types[tensor]), original[tensor]
            assert kind.block_size == 32
            values = kind.dequantize(np.array(file.data(tensor))) / grown[tensor]
            h = damped(h, 0.01, tensor)
            before += layer_error(kind.dequantize(kind.quantize(w)), w, h).sum()
            after += layer_error(values, w, h).sum()
    assert torch and seen and after <= before


def scale_of(tensor, original):
    """Return the factor per column and row between a folded tensor and its original."""
    if isinstance(tensor, Packed):
        return 1.0
    values = tensor.read(0, tensor.shape[0])
    return np.where(original == 0, 1, values / np.where(original == 0, 1, original))


def inputs(job, text, seen):
    """Fill ``seen``: tensor name -> second moments of its inputs."""
    from ggq.converters.calibration.text import calibrate
    from ggq.converters.calibration.weights import SourceWeights, hparams_of
    from ggq.runtime.backends.torch.backend import TorchOps

    def listen(name, x):
        if name.startswith("blk."):
            x = np.asarray(x, np.float64)
            seen[name] = seen.get(name, 0) + x.T @ x / len(x)

    ops = TorchOps(SourceWeights(job.tensors))
    ops.on_linear_input(listen)
    ops.evaluate(hparams_of(job)[1], calibrate(job, text, 128, 16, spread=True).windows)


def test_experts_that_nothing_reaches_are_named(text, tmp_path):
    pytest.importorskip("transformers")
    make_tiny(next(t for t in TINY if t.label == "mixtral"), tmp_path)
    with prepared(tmp_path) as job:
        router = job.tensors["blk.0.ffn_gate_inp.weight"]
        flat = np.zeros(router.shape, np.float32)  # of equals the first two are taken
        job.tensors[router.name] = Replaced(router.name, router.shape, flat)
        parse("gptq:tokens=1024,sweeps=0,n_ctx=128", calibration=str(text))(job)
        (warning, *_) = [w for w in job.warnings if "ffn_gate_exps" in w]
    assert "no calibration token reaches experts 2, 3" in warning
    assert "blk.0.ffn_gate_exps.weight" in warning


@pytest.mark.parametrize(("kind", "needs"), [("TQ1_0", False), ("IQ2_XXS", True)])
def test_types_without_a_grid_are_solved_block_by_block(kind, needs, tmp_path, text):
    pytest.importorskip("torch")
    folder = make_hf(tmp_path / "hf", num_hidden_layers=1)
    with prepared(folder, kind) as job:
        assert bool(job.lacking_importance) == needs
        parse("gptq:tokens=1024,n_ctx=128", calibration=str(text))(job)
        assert isinstance(job.tensors["blk.0.attn_q.weight"], Packed)
        job.run()


def test_what_a_dead_norm_feeds_is_rounded_plainly(tmp_path, text):
    pytest.importorskip("torch")
    folder = make_hf(tmp_path / "hf", num_hidden_layers=1)
    with prepared(folder) as job:
        norm = job.tensors["blk.0.ffn_norm.weight"]
        job.tensors[norm.name] = Replaced(norm.name, norm.shape, np.zeros((1, 256), np.float32))
        parse("gptq:tokens=1024,n_ctx=128", calibration=str(text))(job)
        (warning,) = [w for w in job.warnings if "does not reach" in w]
        assert "3 tensors, such as blk.0.ffn_" in warning
        assert isinstance(job.tensors["blk.0.attn_q.weight"], Packed)
        job.run()


def test_inputs_that_are_not_finite_are_named(tmp_path, text):
    pytest.importorskip("torch")
    folder = make_hf(tmp_path / "hf", num_hidden_layers=1)
    for name in ("imatrix", "gptq", "awq", "smooth"):
        with prepared(folder) as job:
            norm = job.tensors["blk.0.ffn_norm.weight"]
            values = np.full((1, 256), np.nan, np.float32)
            job.tensors[norm.name] = Replaced(norm.name, norm.shape, values)
            made = parse(f"{name}:tokens=1024,n_ctx=128", calibration=str(text))
            with pytest.raises(ModelError, match=r"the inputs of blk\.0\.ffn_gate\.weight are not"):
                made(job)


def test_a_text_without_one_window_is_refused(tmp_path):
    pytest.importorskip("torch")
    from ggq.errors import UsageError

    (tmp_path / "short.txt").write_text("too short")
    folder = make_hf(tmp_path / "hf", num_hidden_layers=1)
    for name in ("imatrix", "gptq", "awq", "smooth"):
        with (
            prepared(folder) as job,
            pytest.raises(UsageError, match=r"short\.txt: .* one window needs 512"),
        ):
            parse(name, calibration=str(tmp_path / "short.txt"))(job)


def test_chats_calibrate(tmp_path):
    """Lines of messages, through the model's own template."""
    import json

    pytest.importorskip("torch")
    folder = make_hf(tmp_path / "hf", num_hidden_layers=1)
    words = TEXT.split()
    said = [" ".join(words[i:]) for i in range(30)]
    chats = [[{"role": r, "content": t} for r in ("user", "assistant")] for t in said]
    lines = [json.dumps({"messages": chat}) for chat in chats]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(lines))
    convert(
        folder,
        tmp_path / "o.gguf",
        prepasses=[parse("gptq:tokens=1024,sweeps=0,n_ctx=128", calibration=str(path))],
    )
