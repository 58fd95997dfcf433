"""The card in a file: evaluate's figures, planned sizes, shown, measured again, not inherited."""

import json

import numpy as np
import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters import job
from ggq.converters.conversion import CARD_KEYS
from ggq.converters.convert import convert, make_request
from ggq.converters.report.card import Card, read_card, write_card
from ggq.errors import UsageError
from ggq.gguf import open_gguf

pytest.importorskip("torch")
TEXT = "The quick brown fox jumps over the lazy dog, and then once more. " * 60


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    (folder / "text.txt").write_text(TEXT)
    return make_hf(folder / "hf", hidden_size=64, intermediate_size=128, max_position_embeddings=64)


@pytest.fixture(scope="module")
def carded(source):
    text = source.parent / "text.txt"
    given = {"prepasses": ["imatrix:tokens=128"], "calibration": text, "card": True}
    (path,) = convert(source, source.parent / "carded.gguf", "Q4_0", **given)
    return path


def card_of(path):
    with open_gguf(path) as file:
        return read_card(file)


def test_the_figures_are_those_of_evaluate(source, carded, tmp_path):
    """The same windows scored by the runtime against an F32 file."""
    from ggq.converters.calibration.text import calibrate, sample
    from ggq.converters.prepare import prepare
    from ggq.runtime.measure.evaluation import score, scored_logits, summary
    from ggq.runtime.model import load

    (base,) = convert(source, tmp_path / "base.gguf", "F32")
    with prepare(source, tmp_path / "x.gguf", "F32") as planned:
        found = calibrate(planned, source.parent / "text.txt", 64, starts=True).windows
    seen = set(sample(np.arange(len(found)), 1).tolist())  # 128 tokens are one window of 512
    left = [i for i in range(len(found)) if i not in seen]
    windows = list(found[sample(np.array(left), 8)])
    with load(carded, n_ctx=64, cache_type="f32") as a, load(base, n_ctx=64, cache_type="f32") as b:
        rows = score(windows, [lambda ids: scored_logits(a, ids)], lambda i: scored_logits(b, i))
    want, card = summary(rows[0]), card_of(carded)
    assert card.positions == len(rows[0]) and card.held_back and card.kld > 0
    got = (card.kld, card.kld_99_9, card.ppl_ratio)
    figures = (want.kld, want.kld_percentiles["99.9"], want.ppl_ratio)
    assert got == pytest.approx(figures, rel=1e-2)
    assert card.same_top == pytest.approx(want.same_top, abs=0.01)


def test_sizes_are_planned_with_it(source, carded):
    given = {"prepasses": ["imatrix:tokens=128"], "calibration": source.parent / "text.txt"}
    plain, with_card = (
        make_request(source, source.parent / "y.gguf", "Q4_0", card=c, **given)
        for c in (False, True)
    )
    sizes = []
    for request in (plain, with_card):
        with job.planned(request, dry_run=True) as (conversion, _):
            sizes.append(conversion.summary().nbytes)
    before, after = open_gguf(carded), carded.stat().st_size
    with before as file:
        n_recipe = sum(len(k) + len(str(v)) for k, v in file.metadata.items() if "recipe" in k)
    assert sizes[0] < sizes[1] <= after < sizes[1] + n_recipe + 512  # what the pass tells


def test_info_shows_it_and_verify_measures_it_again(source, carded, tmp_path, capsys):
    assert main(["info", str(carded)]) == 0
    assert f"against the original, as measured by ggq convert --card: {card_of(carded)}" in (
        capsys.readouterr().out
    )
    text = ["--calibration", str(source.parent / "text.txt")]
    command = ["verify", "--source", str(source), "--card", "-q", *text]
    assert main([*command, str(carded)]) == 0
    assert "card measured again: KLD" in capsys.readouterr().err
    told = tmp_path / "told.gguf"
    told.write_bytes(carded.read_bytes())
    write_card(told, Card(**{**vars(card_of(carded)), "kld": 1e-9}))
    assert main([*command, str(told)]) == 1
    assert "is not what" in (line := capsys.readouterr().err) and "card: kld is 1e-09" in line


def test_what_is_made_of_a_file_does_not_inherit_its_card(carded, tmp_path, capsys):
    convert(carded, tmp_path / "f16.gguf", "F16", allow_requantize=True)
    with open_gguf(tmp_path / "f16.gguf") as file:
        assert not set(CARD_KEYS) & set(file.metadata)
    assert main(["verify", str(tmp_path / "f16.gguf"), "--source", str(carded), "--card"]) == 1
    assert "no card in it to measure (ggq convert --card)" in capsys.readouterr().err


def test_an_unfinished_card_is_told(carded, tmp_path, capsys):
    path = tmp_path / "killed.gguf"
    path.write_bytes(carded.read_bytes())
    write_card(path, Card())
    assert main(["info", str(path)]) == 0
    assert "card: nothing was measured" in capsys.readouterr().out


def test_a_report_beside_it_tells_the_same(source, tmp_path):
    report = tmp_path / "r.json"
    convert(source, tmp_path / "a.gguf", "Q8_0", card=True, report=report)
    told, card = json.loads(report.read_text()), card_of(tmp_path / "a.gguf")
    assert told["ggq.quality.kld"] == told["held_back"]["figures"]["kld"] == pytest.approx(card.kld)


def test_where_none_can_be_made_it_is_refused_before_the_work(source, tmp_path):
    with pytest.raises(UsageError, match="card: goes into one file: ggq split afterwards"):
        convert(source, tmp_path / "a.gguf", "Q8_0", card=True, split_max_size="1M")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="card: not for an adapter"):
        make_request(source, base=str(source), card=True)


def test_differences_beyond_rounding_are_named():
    card = Card(0.01, 0.1, 0.2, 0.9, 1.01, 1000, True)
    assert card.difference(Card(0.01005, 0.1, 0.2, 0.901, 1.01, 1000, True)) is None
    assert "kld is 0.02" in card.difference(Card(0.02, 0.1, 0.2, 0.9, 1.01, 1000, True))
    assert "positions is 5" in card.difference(Card(0.01, 0.1, 0.2, 0.9, 1.01, 5, True))
    assert "kld is nan" in card.difference(Card())
