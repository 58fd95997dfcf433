"""What passes are said to take: it grows with the work, is told before, and warns of memory."""

import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters.conversion import Options
from ggq.converters.prepare import prepare
from ggq.converters.prepasses import estimates
from ggq.converters.prepasses.base import parse
from ggq.converters.prepasses.estimates import Estimate, estimate
from ggq.runtime.cache import memory


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200)
    return make_hf(folder / "hf", max_position_embeddings=64)


@pytest.fixture
def known_speed(monkeypatch):
    monkeypatch.setattr(estimates, "speed", lambda: 1e9)
    monkeypatch.setattr(estimates, "_per_weight", lambda name: 1e-9)


def told(source, *passes, threads=1):
    options = Options(force=True)
    with prepare(source, source.parent / "x.gguf", "Q4_K_M", options=options) as job:
        return estimate(job, [parse(p) for p in passes], threads)


def test_importance_is_one_forward(source, known_speed):
    """Two operations a weight and token, here at 1e9 a second, and the encoding."""
    found = told(source, "imatrix:tokens=65536,n_ctx=64")
    with prepare(source, source.parent / "x.gguf", "F32", options=Options(force=True)) as job:
        names = [
            n for n, t in job.tensors.items() if len(t.shape) == 2 and n != "token_embd.weight"
        ]
        weights = sum(job.tensors[n].shape[0] * job.tensors[n].shape[1] for n in names)
    want = 2 * 65536 * weights / (1e9 * estimates.EFFICIENCY) + estimates.START
    assert found.seconds == pytest.approx(want, rel=0.35)


@pytest.mark.parametrize("name", ["imatrix", "gptq", "awq", "smooth", "distill"])
def test_twice_the_tokens_take_longer_and_more_memory(source, known_speed, name):
    a, b = (told(source, f"{name}:tokens={n},n_ctx=64") for n in (65536, 131072))
    assert a.seconds < b.seconds <= 2 * a.seconds
    assert a.nbytes <= b.nbytes


def test_more_work_takes_longer(source, known_speed):
    gptq = [told(source, f"gptq:tokens=4096,sweeps={n}").seconds for n in (0, 6)]
    assert gptq[0] < gptq[1]
    distill = [told(source, f"distill:tokens=4096,final={n}").seconds for n in (0, 64)]
    assert distill[0] < distill[1]
    both = told(source, "gptq:tokens=4096,sweeps=6", "distill:tokens=4096,final=64").seconds
    assert both == pytest.approx(gptq[1] + distill[1] - estimates.START, rel=0.05)


def test_an_unknown_pass_is_not_guessed(source):
    options = Options(force=True)
    with prepare(source, source.parent / "x.gguf", "Q4_K_M", options=options) as job:
        assert estimate(job, [lambda job: None]) is None


def test_durations_read_well():
    assert str(Estimate(20.2, 10**8)) == "about 20 seconds and 0.1 GB of memory"
    assert "about 5 minutes" in str(Estimate(301, 0)) and "2.0 hours" in str(Estimate(7200, 0))


def test_command_tells_before_it_starts(source, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    text = ["--calibration", str(source.parent / "text.txt")]
    given = ["-t", "Q4_0", "--prepass", "imatrix:tokens=512,n_ctx=64", *text]
    assert main(["convert", str(source), str(tmp_path / "a.gguf"), *given]) == 0
    err = capsys.readouterr().err
    assert "imatrix: about" in err and "GB of memory, at this machine's speed" in err
    assert "warning: only 0.0 GB of memory are free" in err
    assert main(["convert", str(source), str(tmp_path / "b.gguf"), *given, "-q"]) == 0
    assert "about" not in capsys.readouterr().err
