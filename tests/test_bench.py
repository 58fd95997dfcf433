"""The bench command: llama-bench's rows and fields from a tiny model."""

import csv
import io
import json

import pytest
from click.testing import CliRunner

from ggq.cli import cli
from tests.ggufmaker import make_tiny_llama


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "tiny.gguf"
    make_tiny_llama(path, type_id=8)
    return str(path)


def _run(*args):
    done = CliRunner().invoke(cli, ["bench", *args], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_rows_have_llama_benchs_fields(tiny):
    rows = json.loads(_run(tiny, "-p", "8", "-n", "3", "-r", "2", "-t", "1", "-o", "json"))
    assert [(r["n_prompt"], r["n_gen"], r["test"]) for r in rows] == [(8, 0, "pp8"), (0, 3, "tg3")]
    for row in rows:
        assert len(row["samples_ts"]) == 2
        assert row["avg_ts"] == pytest.approx(sum(row["samples_ts"]) / 2)
        assert row["stddev_ts"] >= 0
        assert row["n_threads"] == 1
    assert rows[1]["share_of_read_bandwidth"] > 0
    assert rows[0]["share_of_read_bandwidth"] is None


def test_the_type_is_the_one_that_the_file_names(tmp_path):
    for number, want in ((15, "llama Q4_K_M"), (None, "llama Q8_0"), (999, "llama Q8_0")):
        metadata = {"general.file_type": number}
        path = make_tiny_llama(tmp_path / f"{number}.gguf", type_id=8, metadata=metadata)
        (row,) = json.loads(_run(str(path), "-p", "0", "-n", "1", "-r", "1", "-o", "json"))
        assert row["model_type"] == want


def test_depth_and_tables(tiny):
    table = _run(tiny, "-p", "0", "-n", "2", "-d", "5", "-r", "1").splitlines()
    assert len(table) == 3
    assert "tg2 @ d5" in table[2]
    rows = list(
        csv.DictReader(io.StringIO(_run(tiny, "-p", "4", "-n", "0", "-r", "1", "-o", "csv")))
    )
    assert [r["test"] for r in rows] == ["pp4"]


def test_verbose_names_kernels(tiny):
    done = CliRunner().invoke(cli, ["bench", tiny, "-p", "2", "-n", "0", "-r", "1", "-v"])
    assert "Q8_0 -> few and many tokens -> " in done.stderr


def test_a_profile_tells_the_share_of_each_kind(tiny):
    options = [tiny, "-p", "0", "-n", "1", "-r", "1", "--profile", "-d", "0", "-d", "70"]
    told = CliRunner().invoke(cli, ["bench", *options], catch_exceptions=False).stderr.splitlines()
    starts = [i for i, line in enumerate(told) if line.startswith("a token at ")]
    assert [told[i].split()[3] for i in starts] == ["0:", "70:"]
    kinds = {line[:18].strip() for line in told}
    assert {"linear Q8_0", "attention", "norm", "gate"} <= kinds
    shares = [float(x.split()[-2]) for x in told[starts[0] + 1 : starts[1] - 1]]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert told[-1].startswith("neither matmul nor attention: ")


def test_types_of_the_cache_are_told(tiny):
    row = json.loads(_run(tiny, "-p", "0", "-n", "1", "-r", "1", "-ctv", "f32", "-o", "jsonl"))
    assert (row["type_k"], row["type_v"]) == ("f16", "f32")
