"""The report of a conversion: errors against plain numpy, the worst first, hostile names."""

import json

import numpy as np
import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.converters.report.findings import Finding, findings, worst
from ggq.converters.report.write import write_report
from ggq.errors import UsageError
from ggq.gguf import open_gguf


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_hf(tmp_path_factory.mktemp("report") / "hf")


def test_errors_are_the_plain_ones(source, tmp_path):
    from ggq import quants

    path = convert(source, tmp_path / "a.gguf", type="Q4_K_S")[0]
    name, power = "blk.0.attn_q.weight", np.arange(1, 257, dtype=np.float32)
    with prepare(source, tmp_path / "b.gguf", options=Options(force=True)) as job:
        found = {f.name: f for f in findings(path, job.tensors, {name: power})}
        x = job.tensors[name].read(0, 256).astype(np.float64)
    with open_gguf(path) as file:
        made = quants.get("Q4_K").dequantize(file.data(name))
    got = found[name]
    assert got.type_name == "Q4_K" and got.peak == pytest.approx(np.abs(x).max())
    assert got.error == pytest.approx(np.sqrt(((made - x) ** 2).sum() / (x**2).sum()))
    weighted = np.sqrt((power * (made - x) ** 2).sum() / (power * x**2).sum())
    assert got.weighted == pytest.approx(weighted)
    assert found["blk.0.attn_norm.weight"].error == 0


def finding(name, error, **more):
    given = {"type_name": "Q4_K", "nbytes": 1, "weighted": None, "peak": 1.0, "outlier": 1.0}
    return Finding(name=name, error=error, **{**given, "beyond_f16": False, **more})


def test_the_worst_come_first_with_a_better_type():
    found = [finding("a", 0.1), finding("b", 0.3), finding("c", 0.9, type_name="F32")]
    assert [hint for _, hint, _ in worst(found)] == [
        "--tensor-type '^b$=Q5_K'",
        "--tensor-type '^a$=Q5_K'",
    ]


def test_a_page_escapes_names(tmp_path):
    write_report(tmp_path / "r.html", [finding("<script>x</script>", 0.1)], {"file": "<i>"})
    page = (tmp_path / "r.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<i>" not in page


def test_command_writes_json(source, tmp_path):
    out, report = tmp_path / "o.gguf", tmp_path / "r.json"
    assert main(["convert", str(source), str(out), "-t", "Q4_0", "--report", str(report)]) == 0
    told = json.loads(report.read_text())
    with open_gguf(out) as file:
        assert [t["name"] for t in told["tensors"]] == list(file.tensors)
    assert told["type"] == "Q4_0" and told["suggested"]


def test_what_hurts_most_goes_by_the_inputs_power_and_tells_the_price():
    found = [finding("a.b", 0.1, weighted=0.5, nbytes=450), finding("c", 0.3, weighted=0.2)]
    (first, hint, more), _ = worst(found)
    assert first.name == "a.b" and hint == r"--tensor-type '^a\.b$=Q5_K'" and more == 100
    assert worst([finding("exact", 0.0)]) == []


def test_predictions_are_those_of_evaluate(source, tmp_path):
    """The original in torch, the file in ggq's runtime, on windows that no pass saw."""
    pytest.importorskip("torch")
    from ggq.converters.prepasses.base import parse
    from ggq.converters.report.predictions import held_back
    from ggq.runtime.measure.evaluation import evaluate

    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog, and then once more. " * 60)
    path = convert(source, tmp_path / "a.gguf", type="Q4_0")[0]
    base = convert(source, tmp_path / "base.gguf", type="F32")[0]
    given = {"calibration": str(text)}
    with prepare(source, tmp_path / "b.gguf", options=Options(force=True)) as job:
        found = held_back(job, path, [parse("imatrix:tokens=128,n_ctx=64", **given)])
        whole = held_back(job, path, [parse("imatrix:tokens=0,n_ctx=64", **given)])
        names = {n for n, t in job.tensors.items() if len(t.shape) == 2} - {"token_embd.weight"}
    assert not found.calibrated and whole.calibrated
    assert found.positions == 8 * 31 and set(found.power) == names
    want = evaluate(path, text, base, n_ctx=64).comparison
    assert found.figures["kld"] == pytest.approx(want.kld, rel=0.5)
    assert found.power["blk.0.attn_q.weight"].shape == (256,)


def test_the_page_shows_outliers_and_predictions(tmp_path):
    from ggq.converters.report.predictions import HeldBack
    from ggq.runtime.measure.evaluation import compare_rows, summary

    rng = np.random.default_rng(0)
    rows = compare_rows(*rng.normal(size=(2, 40, 9)), rng.integers(0, 9, 40))
    held = HeldBack("cal.txt", 40, False, vars(summary(rows)))
    found = [
        finding("blk.0.ffn_up.weight", 0.1, beyond_f16=True, peak=1e5),
        finding("blk.1.ffn_up.weight", 0.05, outlier=44.0, peak=3.0),
    ]
    write_report(tmp_path / "r.html", found, {"file": "x.gguf"}, held)
    page = (tmp_path / "r.html").read_text()
    assert "beyond what F16 holds" in page and "44 times the median column" in page
    assert "held back" in page and page.count("<rect") == 2
    assert "<script" not in page and "http" not in page and "url(" not in page
    write_report(tmp_path / "n.html", [], {"file": "x.gguf"}, None)
    assert "torch is needed" in (tmp_path / "n.html").read_text()


@pytest.mark.parametrize("name", ["r.txt", "r", "no/r.html"])
def test_a_report_that_cannot_be_written_is_named_before_the_work(name, source, tmp_path, capsys):
    path, out = tmp_path / name, tmp_path / "o.gguf"
    with pytest.raises(UsageError, match="report "):
        write_report(path, [], {})
    assert main(["convert", str(source), str(out), "-t", "Q8_0", "--report", str(path)]) == 1
    assert f"report {path}: " in capsys.readouterr().err
    assert not out.exists()
