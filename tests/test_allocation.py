"""Types for a number of bytes: the price against all combinations, the budget, files and plans."""

import itertools
import json
import re

import numpy as np
import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters import job
from ggq.converters.prepare import prepare
from ggq.converters.prepasses.allocation import Choice, allocate, fixed_bytes, overrides, read_plan
from ggq.converters.report.card import read_card
from ggq.converters.targets import Weighed, smallest
from ggq.errors import FormatError, UsageError
from ggq.extras import how_to_install
from ggq.gguf import open_gguf, spec


def problem(rng, n):
    """Return tensors whose cost falls fourfold a bit, as block types' does."""
    found = {}
    for i in range(n):
        scale, size = rng.lognormal(0, 2), int(rng.integers(1, 9)) * 64
        found[f"t{i}"] = [Choice(f"Q{b}", size * b, scale * 4.0**-b) for b in (2, 3, 4, 5, 6, 8)]
    return found


def spent(found, types):
    chosen = [next(c for c in found[n] if c.type_name == t) for n, t in types.items()]
    return sum(c.nbytes for c in chosen), sum(c.cost for c in chosen)


def test_the_price_comes_close_to_the_best_of_all_combinations(rng):
    for _ in range(20):
        found = problem(rng, 4)
        budget = int(sum(c[0].nbytes for c in found.values()) * rng.uniform(1.0, 3.5))
        names = list(found)
        every = [dict(zip(names, (c.type_name for c in combination), strict=True))
                 for combination in itertools.product(*found.values())]  # fmt: skip
        best = min(spent(found, t)[1] for t in every if spent(found, t)[0] <= budget)
        nbytes, cost = spent(found, allocate(found, budget))
        assert nbytes <= budget
        assert cost <= 2.5 * best


def test_a_mixture_that_is_no_worse_stays(rng):
    found = problem(rng, 6)
    plain = allocate(found, 9000)
    assert allocate(found, spent(found, plain)[0], plain) == plain
    flat = dict.fromkeys(found, "Q4")
    nbytes, cost = spent(found, flat)
    assert spent(found, allocate(found, nbytes, flat))[1] <= cost


def test_overrides_match_one_tensor_each():
    ((pattern, kind),) = overrides({"blk.1.attn_q.weight": "Q6_K"})
    assert (pattern, kind) == (r"^blk\.1\.attn_q\.weight$", "Q6_K")


@pytest.mark.parametrize(("factor", "power"), [(1.0, 1.0), (3.0, 1.2), (0.2, 0.7)])
def test_the_smallest_file_for_a_divergence_is_found_whatever_the_estimate_is_worth(
    rng, factor, power
):
    """Between the estimate and the truth lie a factor and an exponent that nobody knows."""
    choices = problem(rng, 40)
    found = Weighed(choices, {}, 1000)
    asked, tried = factor * 5.0**power, []

    def attempt(types):
        tried.append(found.nbytes(types))
        return factor * found.cost(types) ** power

    best = smallest(found, asked, attempt)
    assert best.kld <= asked and len(tried) <= 6
    sizes = np.linspace(found.least, found.most, 60).astype(int)
    reaching = [s for s in sizes if factor * found.cost(found.types(s)) ** power <= asked]
    assert best.nbytes <= 1.02 * min(reaching)


def test_a_divergence_that_falls_all_at_once_is_found_by_halving(rng):
    """Where one tensor ruins everything the estimate says little between its two types."""
    found = Weighed(problem(rng, 40), {}, 1000)
    middle = (found.least + found.most) // 2
    best = smallest(found, 0.08, lambda types: 0.4 if found.nbytes(types) < middle else 0.005)
    assert middle <= best.nbytes <= middle + 0.05 * found.most


def test_a_divergence_out_of_reach_is_refused_by_what_was_found(rng):
    found = Weighed(problem(rng, 5), {}, 1000)
    tried = []
    with pytest.raises(UsageError, match=rf"0\.001 is out of reach: a file of {found.most} bytes"):
        smallest(found, 0.001, lambda types: tried.append(types) or 0.5 + found.cost(types))
    assert len(tried) <= 6


def test_a_divergence_that_every_file_keeps_to_takes_the_smallest(rng):
    found = Weighed(problem(rng, 5), {}, 1000)
    best = smallest(found, 0.5, lambda types: 0.0)
    assert best.nbytes == found.least


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_hf(tmp_path_factory.mktemp("source") / "hf", max_position_embeddings=128)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    words = np.random.default_rng(1).choice(["fox", "dog", "lazy", "quick", "box", "jug"], 4000)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(words))
    return path


@pytest.mark.parametrize("target", [["--target-size", "1k"], ["--target-bpw", "1"]])
def test_too_small_a_target_is_refused_before_anything_is_read(target, source, tmp_path, capsys):
    pytest.importorskip("torch")  # without it that is what is refused
    given = [*target, "--calibration", str(tmp_path)]  # a folder cannot be read
    assert main(["convert", str(source), str(tmp_path / "a.gguf"), *given]) == 1
    error = capsys.readouterr().err
    assert re.search(r"bytes is too small for this model: the smallest takes \d+ bytes", error)


@pytest.mark.parametrize("target", ["target-bpw=5", "target-size=2M"])
def test_without_torch_a_target_is_refused_in_one_line(target, source, monkeypatch, capsys):
    monkeypatch.setattr(job, "find_spec", lambda name: None)
    assert main(["convert", str(source), f"--{target}", "-q"]) == 1
    name = target.split("=")[0]
    want = f"ggq: error: --{name}: to weigh types on a text, {how_to_install('torch')}\n"
    assert capsys.readouterr().err == want


def test_the_smallest_size_named_is_one_that_a_file_can_have(source, text, tmp_path, capsys):
    pytest.importorskip("torch")
    with prepare(source, tmp_path / "a.gguf") as job:
        with pytest.raises(UsageError, match="smallest takes") as refused:
            fixed_bytes(job, file_bytes=1000)
        least = int(re.search(r"takes (\d+) bytes", str(refused.value))[1])
        fixed_bytes(job, file_bytes=least)
        with pytest.raises(UsageError):
            fixed_bytes(job, file_bytes=least - 1)
    out = tmp_path / "b.gguf"
    given = ["--calibration", str(text), "--target-size", str(least), "-q"]
    assert main(["convert", str(source), str(out), *given]) == 0, capsys.readouterr().err
    assert least - 256 <= out.stat().st_size <= least


def test_types_that_the_user_named_count_and_stay(source, text, tmp_path, capsys):
    pytest.importorskip("torch")
    named = ["--tensor-type", "attn_v|ffn_down=F16", "--output-tensor-type", "Q8_0"]
    with pytest.raises(UsageError) as refused, prepare(source, tmp_path / "a.gguf") as job:
        fixed_bytes(job, file_bytes=1000)
    least = int(re.search(r"takes (\d+) bytes", str(refused.value))[1])
    given = ["--calibration", str(text), *named, "-q"]
    assert main(["convert", str(source), str(tmp_path), "--target-size", str(least), *given]) == 1
    more = int(re.search(r"smallest takes (\d+) bytes", capsys.readouterr().err)[1])
    out = tmp_path / "b.gguf"
    assert main(["convert", str(source), str(out), "--target-size", str(more), *given]) == 0
    assert out.stat().st_size <= more
    with open_gguf(out) as file:
        types = {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}
    assert {t for n, t in types.items() if "attn_v" in n or "ffn_down" in n} == {"F16"}
    assert types.get("output.weight", types["token_embd.weight"]) == "Q8_0"


def test_files_keep_to_the_target_and_plans_repeat_it(source, text, tmp_path, capsys):
    pytest.importorskip("torch")
    plan = tmp_path / "plan.json"
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    given = ["--calibration", str(text), "--target-bpw", "4.5", "--plan", str(plan), "-q"]
    assert main(["convert", str(source), str(first), *given]) == 0, capsys.readouterr().err
    with open_gguf(first) as file:
        weights = sum(int(np.prod(t.shape)) for t in file.tensors.values())
        types = {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}
    assert first.stat().st_size <= 4.5 * weights / 8
    assert first.stat().st_size > 4.0 * weights / 8
    planned = json.loads(plan.read_text())["tensors"]
    assert {n: types[n] for n in planned} == planned
    assert main(["convert", str(source), str(second), "--plan", str(plan), "-q"]) == 0
    with open_gguf(second) as file:
        assert {n: spec.type_name(t.type_id) for n, t in file.tensors.items()} == types


def test_a_file_that_is_no_plan_is_named(tmp_path):
    (tmp_path / "p.json").write_text('{"tensors": {"a": 3}}')
    with pytest.raises(FormatError, match=r"p\.json: is no plan"):
        read_plan(tmp_path / "p.json")


def test_a_file_keeps_to_the_divergence_asked_for_and_says_so(source, text, tmp_path, capsys):
    """On a divergence between those of two sizes; nothing else is left in the folder."""
    pytest.importorskip("torch")
    out, plan = tmp_path / "a.gguf", tmp_path / "plan.json"
    given = ["--calibration", str(text), "-q"]
    assert main(["convert", str(source), str(out), "-t", "Q4_0", "--card", *given]) == 0
    with open_gguf(out) as file:
        kld = 1.5 * read_card(file).kld
    asked = ["--target-kld", str(kld), "--plan", str(plan)]
    assert main(["convert", str(source), str(out), *asked, *given]) == 1  # it is there
    assert "--force" in capsys.readouterr().err
    assert main(["convert", str(source), str(out), *asked, *given, "--force"]) == 0
    assert capsys.readouterr().err.count("tried ") >= 1
    with open_gguf(out) as file:
        assert read_card(file).kld <= kld
        types = {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}
    assert {n: types[n] for n in json.loads(plan.read_text())["tensors"]} == json.loads(
        plan.read_text()
    )["tensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "plan.json"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--target-size", "2M"], "--target-size and --target-kld: give one of them"),
        (["--report", "r.html"], "--report: not with --target-kld"),
        (["--mmproj"], "--mmproj: not with --target-kld"),
        (["--split-max-size", "1M"], "--card: goes into one file"),
    ],
)
def test_what_a_divergence_cannot_have_is_refused(more, told, source, tmp_path, capsys):
    pytest.importorskip("torch")
    given = ["--target-kld", "0.1", "-q", *more]
    assert main(["convert", str(source), str(tmp_path / "a.gguf"), *given]) == 1
    assert told in capsys.readouterr().err
