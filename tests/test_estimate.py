"""What estimate says is what convert writes and what the cache takes; recommend follows it."""

import json

import pytest
from ggufmaker import F16, make_tiny_llama

import ggq
from ggq import cli

MIB = 2**20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return make_tiny_llama(folder / "t.gguf", F16, n_embd=256, n_ff=512, n_ctx=4096)


def estimate(capsys, *arguments):
    assert cli.main(["estimate", *map(str, arguments), "--json", "--bandwidth", "10"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K_M", "Q2_K"])
def test_sizes_are_those_of_converted_files(path, tmp_path, capsys, kind):
    (out,) = ggq.convert(path, tmp_path / "out.gguf", type=kind)
    rows = {row["type"]: row for row in estimate(capsys, path)["types"]}
    size = out.stat().st_size
    # a converted file also says where it comes from
    assert rows[kind]["file_bytes"] == pytest.approx(size, abs=600)
    assert rows["as it is"]["file_bytes"] == path.stat().st_size
    with ggq.load(out, n_ctx=2048, threads=1) as model:
        from ggq.runtime.measure.benchmark import weight_bytes_per_token

        cache = model.engine.cache.nbytes
        speed = 10e9 / weight_bytes_per_token(model)
    memory = rows[kind]["memory_bytes"]["2048"]
    assert memory == rows[kind]["file_bytes"] + cache + 64 * MIB
    assert rows[kind]["tokens_per_s_at_most"] == pytest.approx(speed)
    assert set(rows[kind]["memory_bytes"]) == {"2048"}  # no context above the trained one


def test_what_fits_is_told(path, capsys):
    rows = {r["type"]: r for r in estimate(capsys, path)["types"]}
    between = sum(rows[t]["memory_bytes"]["2048"] for t in ("F32", "Q2_K")) / 2 / 0.85
    memory = ["--memory", str(between / 1e9)]
    fits = {r["type"]: r["fits"]["2048"] for r in estimate(capsys, path, *memory)["types"]}
    assert not fits["F32"]
    assert fits["Q2_K"]
    assert cli.main(["estimate", str(path), *memory, "--bandwidth", "10"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert " !" in next(line for line in shown if line.startswith("F32"))
    assert " !" not in next(line for line in shown if line.startswith("Q2_K"))


def test_recommend(path, capsys):
    def recommend(**options):
        given = [f"--{name}={value}" for name, value in options.items()]
        code = cli.main(["recommend", str(path), "--bandwidth=10", *given])
        captured = capsys.readouterr()
        return captured.out.strip() if code == 0 else captured.err

    assert recommend(memory=10) == "Q8_0"
    order = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
    rows = {r["type"]: r["tokens_per_s_at_most"] for r in estimate(capsys, path)["types"]}
    for name in order:  # a speed that only it and smaller ones reach
        assert recommend(memory=10, speed=rows[name] - 0.001) == name
    assert "nothing fits: Q2_K takes" in recommend(memory=0.01)
