"""Importance: sums against plain numpy, both back ends, both file forms, llama.cpp's tools."""

import importlib
import os
import shutil
import subprocess

import numpy as np
import pytest
from hfmaker import make_hf

from ggq.cli import main
from ggq.converters.calibration import importance
from ggq.converters.calibration.importance import Hearing, Sums, collect
from ggq.converters.calibration.text import calibrate
from ggq.converters.conversion import Options
from ggq.converters.convert import convert
from ggq.converters.imatrix import read_imatrix
from ggq.converters.prepare import prepare
from ggq.errors import ModelError
from ggq.gguf import open_gguf

TEXT = "Pack my box with five dozen liquor jugs; the five boxing wizards jump quickly. " * 40


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imatrix")
    (folder / "text.txt").write_text(TEXT)
    return make_hf(folder / "hf", max_position_embeddings=128)


def job_of(source):
    return prepare(source, source.parent / "x.gguf", "F32", options=Options(force=True))


def differing(one, other):
    """Return the names of the tensors whose bytes differ."""
    with open_gguf(one) as a, open_gguf(other) as b:
        return [n for n in b.tensors if not np.array_equal(a.data(n), b.data(n))]


def test_sums_are_those_of_the_inputs(source):
    """The first layer's attention input, from numpy alone."""
    with job_of(source) as job:
        windows = calibrate(job, source.parent / "text.txt", limit=2)
        sums = collect(job, windows, backend="reference")
        table = job.tensors["token_embd.weight"].read(0, 384).astype(np.float64)
        gain = job.tensors["blk.0.attn_norm.weight"].read(0, 1)[0]
    x = table[windows.windows.ravel()]
    x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5) * gain
    np.testing.assert_allclose(sums.squares["blk.0.attn_q.weight"][0], (x**2).sum(0), rtol=1e-6)
    assert sums.counts["blk.0.attn_q.weight"] == windows.n_tokens == 256
    assert "token_embd.weight" not in sums.squares


def test_back_ends_agree_and_the_head_is_measured_on_request(source):
    pytest.importorskip("torch")
    with job_of(source) as job:
        windows = calibrate(job, source.parent / "text.txt", limit=1)
        found = [collect(job, windows, True, backend=b).squares for b in ("torch", "reference")]
    assert found[0].keys() == found[1].keys()
    assert "output.weight" in found[0]
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-3)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("tied", [False, True])
def test_no_head_is_computed(tmp_path, monkeypatch, backend, tied):
    """Its inputs are heard, its rows multiplied by nothing; the table is read to embed alone."""
    if backend == "torch":
        pytest.importorskip("torch")
    module = importlib.import_module(f"ggq.runtime.ops.linear.{backend}")
    widths, run = {}, module.run

    def heard(ops, x, name, *rest, **more):
        made = run(ops, x, name, *rest, **more)
        widths[name] = made.shape[1]
        return made

    monkeypatch.setattr(module, "run", heard)
    (tmp_path / "text.txt").write_text(TEXT)
    source = make_hf(tmp_path / "hf", max_position_embeddings=128, tie_word_embeddings=tied)
    with job_of(source) as job:
        windows = calibrate(job, tmp_path / "text.txt", limit=1)
        sums = collect(job, windows, True, backend)
    head = "token_embd.weight" if tied else "output.weight"
    assert widths.pop(head) == 1 < min(widths.values())
    assert sums.counts[head] == windows.n_tokens


@pytest.mark.parametrize("suffix", ["gguf", "dat"])
def test_command_writes_what_convert_reads(source, tmp_path, suffix, capsys):
    out = tmp_path / f"m.{suffix}"
    given = ["--text", str(source.parent / "text.txt"), "--chunks", "2", "-o", str(out)]
    assert main(["imatrix", str(source), *given]) == 0
    found = read_imatrix(out)
    assert found.chunks == 2 and found.dataset == given[1]
    assert all((v >= 0).all() and v.any() for v in found.values.values())
    assert main(["imatrix", str(source), *given]) == 1
    assert "--force" in capsys.readouterr().err
    plain, measured = (
        convert(source, tmp_path / f"{i}.gguf", type="Q4_K_M", imatrix=m)[0]
        for i, m in enumerate((None, out))
    )
    assert "blk.0.attn_q.weight" in differing(plain, measured)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("how", ["convert", "imatrix"])
def test_a_stopped_run_goes_on_behind_its_last_window(source, tmp_path, monkeypatch, how, cut):
    """The same bytes, no window twice; sums that were cut by a power failure are no sums."""
    text, plain, heard = str(source.parent / "text.txt"), Hearing.window, []
    given = {
        "convert": ["--type", "Q4_K_M", "--prepass", "imatrix:n_ctx=64", "--calibration", text],
        "imatrix": ["--text", text, "-c", "64", "-o"],
    }[how]

    def run(name, most):
        """Return the exit status and the number of windows, interrupted where there are more."""

        def window(self, ids):
            if len(heard) == most:
                raise KeyboardInterrupt
            heard.append(ids)
            return plain(self, ids)

        heard.clear()
        monkeypatch.setattr(Hearing, "window", window)
        out = str(tmp_path / name)
        words = [*given, out] if how == "imatrix" else [out, *given]
        return main([how, str(source), *words]), len(heard)

    code, n = run("whole.gguf", None)
    assert code == 0 and n > 10
    monkeypatch.setattr(importance, "KEEP_EVERY", 0)
    monkeypatch.setattr(importance, "_SHARE", 0)
    assert run("out.gguf", 5) == (130, 5)
    (kept,) = tmp_path.glob("out.gguf.unfinished-*/*.npz")
    if cut:
        kept.write_bytes(kept.read_bytes()[:-100])
    assert run("out.gguf", None) == (0, n if cut else n - 5)
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert not list(tmp_path.glob("*.unfinished-*"))


def test_infinite_inputs_are_named():
    with pytest.raises(ModelError, match=r"the inputs of blk\.0\.x are not finite"):
        Sums().add("blk.0.x", np.array([1.0, np.inf]), 4)


def tool(name):
    folder = os.environ.get("GGQ_LLAMA_BIN")
    found = shutil.which(name, path=folder) if folder else shutil.which(name)
    return found or pytest.skip(f"no {name} on the path (set GGQ_LLAMA_BIN to its folder)")


@pytest.mark.parametrize("suffix", ["gguf", "dat"])
def test_llama_quantize_makes_the_same_bytes_from_our_matrix(source, tmp_path, suffix):
    quantize = tool("llama-quantize")
    base = convert(source, tmp_path / "f32.gguf", type="F32")[0]
    matrix = tmp_path / f"m.{suffix}"
    text = str(source.parent / "text.txt")
    assert main(["imatrix", str(base), "--text", text, "-o", str(matrix)]) == 0
    ours = convert(base, tmp_path / "ours.gguf", type="Q4_K_M", imatrix=matrix)[0]
    theirs = tmp_path / "theirs.gguf"
    command = [quantize, "--imatrix", matrix, base, theirs, "Q4_K_M", "1"]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    assert differing(ours, theirs) == []


def test_llama_imatrix_measures_the_same(source, tmp_path):
    measure = tool("llama-imatrix")
    base = convert(source, tmp_path / "f32.gguf", type="F32")[0]
    text, out = str(source.parent / "text.txt"), tmp_path / "theirs.gguf"
    command = [measure, "-m", base, "-f", text, "-o", out, "-c", "128", "-t", "1", "--no-ppl"]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    given = ["--text", text, "-o", str(tmp_path / "ours.gguf")]
    assert main(["imatrix", str(base), *given]) == 0
    theirs, ours = read_imatrix(out), read_imatrix(tmp_path / "ours.gguf")
    assert ours.values.keys() == theirs.values.keys() and ours.chunks == theirs.chunks
    for name, values in theirs.values.items():
        np.testing.assert_allclose(ours.values[name], values, rtol=5e-3)
