"""Pre-passes: the solver against a textbook loop, never worse than rounding, files that hold."""

import numpy as np
import pytest
from hfmaker import make_hf

from ggq import quants
from ggq.cli import main
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.converters.prepasses.base import names, parse
from ggq.converters.prepasses.solving.hessian import Hessian, damped, layer_error
from ggq.converters.prepasses.solving.solver import Solver, integer_range, regress
from ggq.errors import ModelError, UsageError
from ggq.gguf import open_gguf

TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
TABLES = ["IQ4_NL", "IQ4_XS", "MXFP4"]
LATTICES = ["IQ1_M", "IQ2_XXS", "IQ2_S", "IQ3_XXS"]  # codes of several weights at once


def problem(rng, rows, n):
    """Return weights and correlated second moments with outlying channels."""
    mix = rng.normal(size=(n, n)) * rng.lognormal(0, 1, n)
    x = rng.normal(size=(2 * n, n)) @ mix
    return (rng.standard_t(5, (rows, n)) * 0.02).astype(np.float32), x.T @ x / len(x)


def textbook(w, hessian, grid, order):
    """GPTQ in float64, one column at a time, inverse Hessian updated by elimination."""
    w, inverse = w.astype(np.float64), np.linalg.inv(hessian)
    codes = np.zeros(w.shape, np.uint8)
    for k in order:
        nearest = np.rint((w[:, k] + grid.offset[:, k]) / grid.scale[:, k])
        codes[:, k] = np.clip(nearest, 0, grid.levels - 1)
        error = (w[:, k] - grid.scale[:, k] * codes[:, k] + grid.offset[:, k]) / inverse[k, k]
        w -= np.outer(error, inverse[k])
        inverse -= np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return codes


def test_columns_are_the_textbook_loop(rng):
    kind = quants.get("Q4_K")
    w, h = problem(rng, 20, 512)  # several blocks of columns
    hessian = Hessian(h, "w")
    h = hessian.damped(0.05)
    params, codes = kind.unpack(kind.quantize(w, np.diag(h).astype(np.float32)))
    grid = kind.grid(params)
    codes = Solver(kind, damp=0.05)._columns(w, params, hessian, codes)
    want = textbook(w, h, grid, hessian.order)
    # A tie within float32 may fall the other way; the errors that follow then differ as well.
    assert (codes != want).mean() < 0.02
    ours, theirs = (layer_error(grid.values(c), w, h).sum() for c in (codes, want))
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours < 0.9 * layer_error(grid.values(grid.nearest(w)), w, h).sum()


@pytest.mark.parametrize(
    ("name", "n", "share"),
    [(name, 256, 0.9) for name in TYPES + TABLES] + [(name, 512, 0.97) for name in LATTICES],
)
def test_no_row_is_worse_than_the_search(rng, name, n, share):
    """Of codes of several weights, only the blocks behind make up for an error."""
    kind = quants.get(name)
    w, h = problem(rng, 16, n)
    found = Solver(kind, sweeps=2).solve(w, Hessian(h, "w"))
    np.testing.assert_array_equal(found.values, kind.dequantize(found.blocks))
    h = damped(h, 0.2, "w")
    plain = kind.dequantize(kind.quantize(w, (np.diag(h) / np.diag(h).mean()).astype(np.float32)))
    before, after = layer_error(plain, w, h), layer_error(found.values, w, h)
    assert (after <= before * (1 + 1e-5)).all()
    assert after.sum() < share * before.sum()


@pytest.mark.parametrize("parts", [((0, 96),), ((0, 32), (40, 96))])
def test_errors_are_spread_over_the_rows_behind(rng, parts):
    """The loss tr(O E H E') falls by it, and rows without a curvature are solved alone."""
    kind = quants.get("Q4_K")
    w, h = problem(rng, 96, 256)
    _, curvature = problem(rng, 1, 96)
    outer = [(slice(a, b), Hessian(curvature[a:b, a:b], "w")) for a, b in parts]
    solver, hessian = Solver(kind), Hessian(h, "w")
    alone, found = solver.solve(w, hessian), solver.solve(w, hessian, outer)
    np.testing.assert_array_equal(found.values, kind.dequantize(found.blocks))
    for rows, one in outer:
        losses = [
            np.trace(one.matrix @ e @ hessian.damped(0.2) @ e.T)
            for e in ((q.values - w)[rows].astype(np.float64) for q in (alone, found))
        ]
        assert losses[1] < 0.95 * losses[0]
    apart = np.setdiff1d(np.arange(96), np.concatenate([np.arange(a, b) for a, b in parts]))
    np.testing.assert_array_equal(found.values[apart], alone.values[apart])


def test_more_sweeps_never_raise_the_error(rng):
    w, h = problem(rng, 16, 512)
    errors = [
        Solver(quants.get("Q3_K"), sweeps=s).solve(w, Hessian(h, "w")).error for s in (0, 1, 4)
    ]
    assert errors[0] >= errors[1] >= errors[2]


def test_ranges_are_what_the_bytes_hold():
    assert integer_range(quants.get("Q4_K"), "sc") == (0, 63)
    assert integer_range(quants.get("Q2_K"), "mn") == (0, 15)
    assert integer_range(quants.get("Q6_K"), "sc") == (-128, 127)


def test_the_target_is_the_least_squares_map(rng):
    """From the student's inputs to the teacher's outputs, by numpy's own solver."""
    w = rng.normal(size=(5, 16)).astype(np.float32)
    teacher = rng.normal(size=(400, 16))
    student = teacher + 0.1 * rng.normal(size=(400, 16))
    h, cross = student.T @ student / 400, teacher.T @ student / 400
    found = regress(w, Hessian(h, "w"), w @ (cross - h), ridge=0.0)
    want = np.linalg.lstsq(student, teacher @ w.T, rcond=None)[0].T
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_bad_moments_are_named():
    with pytest.raises(ModelError, match="the inputs of w are not finite"):
        damped(np.full((2, 2), np.nan), 0.01, "w")
    with pytest.raises(ModelError, match="no calibration token reaches it"):
        damped(np.zeros((2, 2)), 0.01, "w")


def test_a_singular_hessian_is_damped(rng):
    w = rng.normal(size=(8, 256)).astype(np.float32)
    x = rng.normal(size=(3, 256))
    found = Solver(quants.get("Q4_K"), sweeps=1, damp=0.0).solve(w, Hessian(x.T @ x, "w"))
    assert np.isfinite(found.values).all() and found.error <= found.plain_error


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepass")
    words = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "wizards"]
    order = np.random.default_rng(3).integers(0, len(words), 6000)
    (folder / "text.txt").write_text(" ".join(words[i] for i in order))
    return make_hf(folder / "hf", max_position_embeddings=128, tie_word_embeddings=True)


def test_gptq_writes_blocks_that_predict_better(source, tmp_path):
    """Of the same types and size, nearer to the original than rounding to nearest."""
    pytest.importorskip("torch")
    from ggq.runtime.measure.evaluation import evaluate

    text = source.parent / "text.txt"
    passes = [parse("gptq:tokens=4096,sweeps=1,curvature=1024,n_ctx=128", calibration=str(text))]
    plain = convert(source, tmp_path / "plain.gguf", type="Q3_K_M")[0]
    solved = convert(source, tmp_path / "solved.gguf", type="Q3_K_M", prepasses=passes)[0]
    with open_gguf(plain) as a, open_gguf(solved) as b:
        types = [{n: t.type_id for n, t in f.tensors.items()} for f in (a, b)]
    assert types[0] == types[1]
    base = convert(source, tmp_path / "base.gguf", type="F32")[0]
    found = [evaluate(p, text, base, chunks=6).comparison.kld for p in (plain, solved)]
    assert found[1] < 0.8 * found[0]


def test_the_stream_is_the_forward(source):
    """With weights kept, teacher and student inputs are those of a plain run."""
    torch = pytest.importorskip("torch")
    from ggq.converters.calibration.weights import SourceWeights, hparams_of
    from ggq.converters.prepasses.solving.streams import StreamOps
    from ggq.runtime.backends.torch.backend import TorchOps

    windows = np.random.default_rng(0).integers(0, 300, (5, 16))
    seen, want = {}, {}

    def choose(name, x, residual, factor):
        seen[name] = torch.cat(x.teacher), torch.cat(x.student)
        assert (residual is None) == (not name.endswith(("attn_output.weight", "ffn_down.weight")))

    with prepare(source, source.parent / "x.gguf", "F32", options=Options(force=True)) as job:
        architecture, hp = hparams_of(job)
        weights = SourceWeights(job.tensors)
        with torch.inference_mode():
            ops = StreamOps(weights, windows, choose, lambda name: None, batch=2)
            architecture.forward(ops, hp)
            plain = TorchOps(weights)
            plain.on_linear_input(lambda name, x: want.setdefault(name, x))
            plain.evaluate(hp, windows)
    assert seen.keys() == want.keys()
    for name, (teacher, student) in seen.items():
        torch.testing.assert_close(teacher, want[name], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(student, teacher)


def folded(source, text):
    """Return the pass after it ran on a model of grouped heads, the logits before and after."""
    from ggq.converters.calibration.weights import SourceWeights, hparams_of
    from ggq.runtime.backends.torch.backend import logits

    ids = np.random.default_rng(1).integers(0, 300, 40)
    made = parse(text, calibration=str(source.parent / "text.txt"))
    options = Options(force=True)
    with prepare(source, source.parent / "x.gguf", "Q4_0", options=options) as job:
        _, hp = hparams_of(job)
        before = logits(SourceWeights(job.tensors), hp, ids)
        made(job)
        after = logits(SourceWeights(job.tensors), hp, ids)
    return made, before, after


@pytest.mark.parametrize("text", ["awq:tokens=512,grid=4,n_ctx=128", "smooth:tokens=512,n_ctx=128"])
def test_folds_leave_the_logits_as_they_are(source, text):
    pytest.importorskip("torch")
    made, before, after = folded(source, text)
    assert len(made.chosen) == 2 * 4  # norm, norm, v and up of two layers
    assert any(made.chosen.values())
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def test_a_fold_without_its_producer_is_named(source):
    from ggq.converters.calibration.weights import hparams_of
    from ggq.converters.prepasses.folds import find_folds

    with prepare(source, source.parent / "x.gguf", "F32", options=Options(force=True)) as job:
        architecture, hp = hparams_of(job)
        del job.tensors["blk.1.attn_norm.weight"]
        folds = find_folds(job, architecture, hp)
        assert "blk.1.attn_norm.weight" not in {f.producer for f in folds} and len(folds) == 7
        assert "blk.1.attn_q.weight is not folded: no tensor blk.1.attn_norm" in job.warnings[-1]


def test_awq_lowers_the_error_of_a_flat_grid(rng):
    """An input with few strong columns, a type with one scale for 32 weights."""
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    from ggq.converters.prepasses.base import Replaced
    from ggq.converters.prepasses.folds import Fold
    from ggq.converters.prepasses.solving.streams import Pair

    x = torch.from_numpy((rng.normal(size=(300, 64)) * rng.lognormal(0, 2, 64)).astype(np.float32))
    w = rng.normal(size=(32, 64)).astype(np.float32)
    fold = Fold("p", ["w"])
    plan = SimpleNamespace(types=[("w", "Q4_0")])
    tensors = {"w": Replaced("w", w.shape, w)}
    job = SimpleNamespace(plan=plan, tensors=tensors, imatrix=None)
    alpha = parse("awq").search(job, fold, Pair([x], [x]))
    kind, h = quants.get("Q4_0"), damped((x.T @ x).double().numpy() / 300, 0.01, "w")
    importance = np.diag(h).astype(np.float32)
    plain = layer_error(kind.dequantize(kind.quantize(w, importance)), w, h).sum()
    scaled = kind.quantize((w * fold.scale).astype(np.float32), job.imatrix.values["w"])
    assert alpha > 0
    assert layer_error(kind.dequantize(scaled) / fold.scale, w, h).sum() < plain


def test_a_killed_run_goes_on_where_it_was(source, tmp_path):
    """With half of its blocks kept from before, the result is the same and only half is solved."""
    pytest.importorskip("torch")
    solved = []

    def watch(limit):
        def progress(done, total, name):
            solved.append(name)
            if done == limit:
                raise KeyboardInterrupt

        return progress

    def run(limit, out):
        text = str(source.parent / "text.txt")
        options = "gptq:tokens=2048,sweeps=0,n_ctx=128"
        made = parse(options, calibration=text, progress=watch(limit))
        return convert(source, out, type="Q4_K_S", prepasses=[made])[0]

    whole = run(None, tmp_path / "whole.gguf").read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "whole.gguf"]
    with pytest.raises(KeyboardInterrupt):
        run(9, tmp_path / "killed.gguf")
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    kept = {p: p.read_bytes() for p in folder.iterdir()}
    assert len(kept) == 9 and not (tmp_path / "killed.gguf").exists()
    assert run(None, tmp_path / "killed.gguf").read_bytes() == whole
    assert not folder.exists()


def test_presets_are_passes(monkeypatch):
    from ggq.converters.prepasses import presets

    monkeypatch.setattr(presets, "find_spec", lambda name: object())  # as if torch is there
    assert presets.passes(None, []) == presets.passes("fast", []) == []
    for quality in ("good", "best"):
        (made,) = presets.passes(quality, [], calibration="x.txt")
        assert made.calibration == "x.txt" and type(made).__name__ == "GPTQ"
    monkeypatch.setattr(presets, "find_spec", lambda name: None)
    (made,) = presets.passes("good", [])
    assert type(made).__name__ == "Importance"
    with pytest.raises(UsageError, match="quality better: one of fast, good, best"):
        presets.passes("better", [])


def test_classes_are_public():
    import ggq

    assert ggq.prepass.GPTQ(damp=0.1).damp == 0.1
    assert {ggq.prepass.AWQ, ggq.prepass.Smooth, ggq.prepass.Importance}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = ggq.prepass.Nothing


def test_too_little_text_is_refused(source, tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "short.txt").write_text("the quick brown fox " * 100)
    given = ["--type", "Q4_K_M", "--prepass", "gptq", "--calibration", str(tmp_path / "short.txt")]
    assert main(["convert", str(source), str(tmp_path / "o.gguf"), *given]) == 1
    assert "too few to calibrate" in capsys.readouterr().err
    assert not (tmp_path / "o.gguf").exists()


def test_names_and_options_of_passes():
    assert {"gptq", "imatrix"} <= set(names())
    made = parse("gptq:damp=0.1,head=no,tokens=64", calibration="x.txt")
    assert (made.damp, made.head, made.tokens, made.calibration) == (0.1, False, 64, "x.txt")
    for text, message in [
        ("nothing", "unknown; one of"),
        ("gptq:dmp=1", "dmp is not one of"),
        ("gptq:damp=high", "damp must be a number"),
    ]:
        with pytest.raises(UsageError, match=message):
            parse(text)


def make_experts(folder):
    """Write a tiny Mixtral: four experts, two for each token."""
    from hfmaker import LLAMA, save, shapes_of, weights

    extra = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 1}
    extra |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    make_hf(folder, **extra)
    full = LLAMA | extra | {"vocab_size": 384}
    rng = np.random.RandomState(2)
    tensors = {n: weights(rng, s) for n, s in shapes_of(full) if ".mlp." not in n}
    prefix = "model.layers.0.block_sparse_moe."
    tensors[f"{prefix}gate.weight"] = rng.randn(4, 256).astype(np.float32)
    for e in range(4):
        for name, shape in (("w1", (512, 256)), ("w2", (256, 512)), ("w3", (512, 256))):
            tensors[f"{prefix}experts.{e}.{name}.weight"] = weights(rng, shape)
    save(folder, tensors)
    return folder


def test_experts_are_solved_on_what_reaches_them(source, tmp_path):
    pytest.importorskip("torch")
    from ggq.runtime.measure.evaluation import evaluate

    folder, text = make_experts(tmp_path / "moe"), source.parent / "text.txt"
    passes = [parse("gptq:tokens=3072,sweeps=1,n_ctx=128", calibration=str(text))]
    base, plain = (convert(folder, tmp_path / f"{t}.gguf", type=t)[0] for t in ("F32", "Q3_K_S"))
    solved = convert(folder, tmp_path / "s.gguf", type="Q3_K_S", prepasses=passes)[0]
    with open_gguf(plain) as a, open_gguf(solved) as b:
        for name in ("ffn_gate_exps", "ffn_down_exps"):
            name = f"blk.0.{name}.weight"
            assert (a.data(name) != b.data(name)).any() and a.tensors[name].type_id == 11
    found = [evaluate(p, text, base, chunks=4).comparison.kld for p in (plain, solved)]
    assert found[1] < 0.8 * found[0]
