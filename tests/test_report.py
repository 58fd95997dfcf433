"""The report of a conversion: errors against plain numpy, the worst first, hostile names."""

import json

import numpy as np
import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters.convert import Options, convert, prepare
from ggq.converters.report import Finding, findings, worst, write_report
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
    assert [hint for _, hint in worst(found)] == [
        "--tensor-type '^b$=Q5_K'",
        "--tensor-type '^a$=Q5_K'",
    ]


def test_a_page_escapes_names(tmp_path):
    write_report(tmp_path / "r.html", [finding("<script>x</script>", 0.1)], {"file": "<b>"})
    page = (tmp_path / "r.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b>" not in page


def test_command_writes_json(source, tmp_path):
    out, report = tmp_path / "o.gguf", tmp_path / "r.json"
    assert main(["convert", str(source), str(out), "-t", "Q4_0", "--report", str(report)]) == 0
    told = json.loads(report.read_text())
    with open_gguf(out) as file:
        assert [t["name"] for t in told["tensors"]] == list(file.tensors)
    assert told["type"] == "Q4_0" and told["suggested"]
