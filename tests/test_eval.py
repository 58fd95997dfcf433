"""Perplexity and divergence: figures against plain numpy, the protocol, the command."""

import json

import numpy as np
import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters.convert import convert
from ggq.errors import UsageError
from ggq.runtime.measure.evaluation import compare_rows, evaluate, summary, windows

TEXT = "The quick brown fox jumps over the lazy dog, and then once more. " * 60


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    source = make_hf(folder / "hf", max_position_embeddings=64)
    paths = {t: convert(source, folder / f"{t}.gguf", type=t)[0] for t in ("F32", "Q4_K_M")}
    return source, paths


def plain_softmax(row):
    e = np.exp(row.astype(np.float64) - row.max())
    return e / e.sum()


def test_rows_are_the_plain_figures(rng):
    ours, base = rng.normal(size=(2, 130, 50)).astype(np.float32) * 3
    targets = rng.integers(0, 50, 130)
    rows = compare_rows(ours, base, targets)
    for i in range(130):
        q, p, t = plain_softmax(ours[i]), plain_softmax(base[i]), targets[i]
        want = [-np.log(q[t]), -np.log(p[t]), np.sum(p * np.log(p / q)), q[t] - p[t]]
        np.testing.assert_allclose(rows[i, :4], want, rtol=1e-9, atol=1e-12)
        assert rows[i, 4] == (q.argmax() == p.argmax())


def test_a_model_is_at_no_distance_from_itself(rng):
    logits = rng.normal(size=(40, 30)).astype(np.float32)
    found = summary(compare_rows(logits, logits, rng.integers(0, 30, 40)))
    assert found.kld == found.delta_p_rms == found.ln_ratio == 0
    assert found.same_top == found.ppl_ratio == 1
    assert found.correlation == pytest.approx(1)


def test_summary_is_the_plain_statistics(rng):
    ours, base = rng.normal(size=(2, 200, 20)).astype(np.float32)
    rows = compare_rows(ours, base, rng.integers(0, 20, 200))
    found = summary(rows)
    kld = rows[:, 2]
    assert found.kld == pytest.approx(kld.mean())
    assert found.kld_error == pytest.approx(kld.std(ddof=1) / np.sqrt(200))
    assert found.kld_median == pytest.approx(np.median(kld))
    assert found.kld_percentiles["99"] == pytest.approx(np.percentile(kld, 99))
    assert found.ppl_ratio == pytest.approx(np.exp(rows[:, 0].mean() - rows[:, 1].mean()))
    assert found.delta_p_rms == pytest.approx(np.sqrt((rows[:, 3] ** 2).mean()))


def test_windows_begin_with_bos_and_drop_the_rest():
    got = list(windows(range(23), 5, bos=99))
    assert [w.tolist() for w in got[:2]] == [[99, 1, 2, 3, 4], [99, 6, 7, 8, 9]]
    assert len(got) == 4 and len(list(windows(range(23), 5, limit=2))) == 2
    with pytest.raises(UsageError, match="3 tokens, one window needs 5"):
        list(windows(range(3), 5))


def test_perplexity_is_that_of_the_reference(files):
    """Windows of the trained context, second half scored, against float64 logits."""
    from ggq.gguf import open_gguf
    from ggq.models import get
    from ggq.runtime.backends.reference import logits
    from ggq.runtime.engine.weights import Weights
    from ggq.runtime.tokenizers import tokenizer_from_gguf

    path = files[1]["F32"]
    result = evaluate(path, TEXT, n_ctx=512, chunks=2)
    assert (result.n_ctx, result.n_windows, result.n_scored) == (64, 2, 62)
    nll = []
    with open_gguf(path) as file:
        ids = tokenizer_from_gguf(file).encode(TEXT)
        for start in (0, 64):
            window = ids[start : start + 64]
            found = logits(Weights(file), get("llama").hparams(file), window)
            nll += [-np.log(plain_softmax(found[i])[window[i + 1]]) for i in range(32, 63)]
    assert result.ppl == pytest.approx(np.exp(np.mean(nll)), rel=1e-5)


def test_command_compares_with_the_folder(files, capsys):
    source, paths = files
    (source.parent / "text.txt").write_text(TEXT)
    given = ["--text", str(source.parent / "text.txt"), "--chunks", "2", "--json", "-q"]
    assert main(["eval", str(paths["F32"]), "--against", str(source), *given]) == 0
    exact = json.loads(capsys.readouterr().out)
    assert exact["comparison"]["kld"] < 1e-9
    assert main(["eval", str(paths["Q4_K_M"]), "--against", str(source), *given]) == 0
    lossy = json.loads(capsys.readouterr().out)
    assert lossy["comparison"]["kld"] > exact["comparison"]["kld"]
    assert lossy["nbytes"] == paths["Q4_K_M"].stat().st_size < exact["nbytes"]


def test_command_measures_what_a_narrow_cache_costs(files, capsys):
    source, paths = files
    (source.parent / "text.txt").write_text(TEXT)
    given = [str(paths["F32"]), "--text", str(source.parent / "text.txt"), "--chunks", "1"]
    costs = {}
    for kind in ("f32", "f16"):
        told = [*given, "--against", str(paths["F32"]), "--cache-type-k", kind, "--json", "-q"]
        assert main(["eval", *told]) == 0
        costs[kind] = json.loads(capsys.readouterr().out)["comparison"]["kld"]
    assert abs(costs["f32"]) < 1e-12 < costs["f16"] < 1e-3


def test_command_says_what_is_missing(files, capsys):
    path = str(files[1]["F32"])
    assert main(["eval", path]) == 1
    assert "--text FILE" in capsys.readouterr().err
    assert main(["eval", path, "--text", path]) == 1
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_models_share_one_run_of_the_base(files, monkeypatch):
    """Several files, the figures of each alone; logits of the scored half only."""
    from ggq.runtime.measure import evaluation

    paths, seen = files[1], []
    scored = evaluation.scored_logits

    def counted(model, ids):
        seen.append(str(model.gguf.path))
        return scored(model, ids)

    monkeypatch.setattr(evaluation, "scored_logits", counted)
    both = evaluation.evaluate_all([paths["Q4_K_M"], paths["F32"]], TEXT, paths["F32"], chunks=3)
    assert seen.count(str(paths["Q4_K_M"])) == 3 and len(seen) == 9
    alone = evaluate(paths["Q4_K_M"], TEXT, paths["F32"], chunks=3)
    assert both[0] == alone
    assert both[1].comparison.kld == 0 and both[1].comparison.same_top == 1


def test_scored_logits_are_those_of_the_whole_window(files):
    from ggq.runtime.measure.evaluation import scored_logits
    from ggq.runtime.model import load

    ids = np.random.default_rng(0).integers(0, 300, 64)
    with load(files[1]["F32"], cache_type="f32") as model:
        whole = model.logits(ids)[32:-1]
        np.testing.assert_allclose(scored_logits(model, ids), whole, atol=1e-5)


def test_a_folder_of_halves_is_compared_as_it_is(files, tmp_path):
    """The temporary file has the checkpoint's own float type: exact, at half the size."""
    from ggq.commands.eval import _base
    from ggq.gguf import open_gguf, spec

    half = make_hf(tmp_path / "half", dtype="BF16")
    for source, want in ((half, "BF16"), (files[0], "F32")):
        with _base(str(source), True) as path, open_gguf(path) as file:
            kind = file.tensors["blk.0.ffn_up.weight"].type_id
            assert spec.type_name(kind) == want


def test_command_draws_sizes_and_divergence(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    source, paths = files
    (tmp_path / "text.txt").write_text(TEXT)
    given = ["--against", str(source), "--text", str(tmp_path / "text.txt"), "--chunks", "1", "-q"]
    models = [str(p) for p in paths.values()]
    assert main(["eval", *models, *given, "--plot", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("KLD mean") == 2
    assert main(["eval", *models, *given, "--plot", str(tmp_path / "p.xyz")]) == 1
    assert "--plot" in capsys.readouterr().err
    assert main(["eval", *models, "--prompts", "x", "--plot", "p.png"]) == 1
    assert "give --against and --text" in capsys.readouterr().err


def test_command_shows_answers_side_by_side(files, tmp_path, capsys):
    source, paths = files
    (tmp_path / "prompts.txt").write_text("Hello\n\nHow are you?\n")
    given = ["--prompts", str(tmp_path / "prompts.txt"), "-n", "4", "-q", "--against", str(source)]
    assert main(["eval", str(paths["Q4_K_M"]), *given]) == 0
    told = capsys.readouterr().out
    assert "> Hello" in told and "> How are you?" in told
    head = next(line for line in told.splitlines() if "Q4_K_M.gguf" in line)
    assert head.index("hf") < head.index("Q4_K_M.gguf")
    assert main(["eval", str(paths["Q4_K_M"]), *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["answers"]
    assert len(found["answers"]) == 2 and len(found["answers"][0]) == 2


def test_hostile_answers_stay_in_their_column():
    from ggq.runtime.measure.evaluation_text import side_by_side

    told = side_by_side(["a", "b"], ["[red]p"], [["x[/]\x1b[31m\nline"], [""]], 60)
    assert "\x1b" not in told and "[red]p" in told and "x[/]" in told and "(nothing)" in told
    assert all(len(line) <= 60 for line in told.splitlines())


def test_oracle_perplexity_is_llama_perplexitys(shared_dir, tmp_path):
    """Through llama.cpp's own logits, on windows that begin with BOS: within 1 %."""
    llama_cpp = pytest.importorskip("llama_cpp")
    path = convert(shared_dir / "models" / "stories15M", tmp_path / "m.gguf", type="Q8_0")[0]
    text = "Once upon a time, there was a little girl. She liked to play with her red ball. " * 40
    found = evaluate(path, text, chunks=2)
    peer = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    ids = peer.tokenize(text.encode())
    nll = []
    for window in windows(ids, 256, peer.token_bos(), 2):
        peer.reset()
        peer.eval(window.tolist())
        rows = peer.scores[127 + 1 : 255]
        nll += [-np.log(plain_softmax(r)[t]) for r, t in zip(rows, window[129:], strict=True)]
    assert found.n_scored == len(nll)
    assert found.ppl == pytest.approx(np.exp(np.mean(nll)), rel=0.01)


def test_the_name_of_a_file_is_no_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.txt").write_text("words " * 100)
    with pytest.raises(UsageError, match=r"t\.txt is a file: give pathlib\.Path"):
        evaluate(make_tiny_llama(tmp_path / "t.gguf"), "t.txt")
