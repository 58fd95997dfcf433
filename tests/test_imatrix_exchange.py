"""Importance matrices to and from llama.cpp: the same bytes of the quantized file, both ways."""

import subprocess

import numpy as np
import pytest
from hfmaker import make_hf, weights
from test_importance import TEXT, differing, tool

from ggq.cli import main
from ggq.converters.convert import convert
from ggq.converters.imatrix import read_imatrix

N_EXPERT = 4


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Write a tiny Mixtral as an F32 file: two of four experts for each token, one hardly used."""
    folder = tmp_path_factory.mktemp("exchange")
    (folder / "text.txt").write_text(TEXT)
    config = {"num_local_experts": N_EXPERT, "num_experts_per_tok": 2, "num_hidden_layers": 1}
    config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    rng = np.random.RandomState(5)
    prefix = "model.layers.0.block_sparse_moe."
    gate = weights(rng, (N_EXPERT, 256))
    gate[3] = gate[2] - 0.01  # where the third expert is chosen this one is next, seldom before
    extra = {f"{prefix}gate.weight": gate}
    for e in range(N_EXPERT):
        for name, shape in (("w1", (512, 256)), ("w2", (256, 512)), ("w3", (512, 256))):
            extra[f"{prefix}experts.{e}.{name}.weight"] = weights(rng, shape)
    source = make_hf(folder / "hf", extra=extra, max_position_embeddings=128, **config)
    return _without_dense(source, folder)


def _without_dense(source, folder):
    """Return the F32 file of ``source`` after its dense feed-forward was taken out."""
    from safetensors.numpy import load_file, save_file

    path = source / "model.safetensors"
    kept = {n: t for n, t in load_file(path).items() if ".mlp." not in n}
    save_file(kept, path)
    return convert(source, folder / "base.gguf", type="F32")[0]


def quantized(base, matrix, folder, kind="Q4_K_M"):
    """Return what ggq and llama-quantize make of ``base`` with the matrix."""
    ours = convert(base, folder / "ours.gguf", type=kind, imatrix=matrix)[0]
    theirs = folder / "theirs.gguf"
    command = [tool("llama-quantize"), "--imatrix", matrix, base, theirs, kind, "1"]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    return ours, theirs


def measured(base, out):
    """Run llama-imatrix as ggq would: windows of the trained context."""
    text = base.parent / "text.txt"
    command = [tool("llama-imatrix"), "-m", base, "-f", text, "-o", out, "-c", "128", "-t", "1"]
    command += ["--no-ppl", "--output-format", out.suffix[1:]]
    subprocess.run([str(c) for c in command], check=True, capture_output=True)
    return out


@pytest.mark.parametrize("suffix", ["gguf", "dat"])
def test_their_matrix_makes_the_same_bytes_here(mixture, tmp_path, suffix):
    matrix = measured(mixture, tmp_path / f"theirs.{suffix}")
    ours, theirs = quantized(mixture, matrix, tmp_path)
    assert differing(ours, theirs) == []
    plain = convert(mixture, tmp_path / "plain.gguf", type="Q4_K_M")[0]
    assert "blk.0.ffn_up_exps.weight" in differing(plain, ours)


@pytest.mark.parametrize("suffix", ["gguf", "dat"])
def test_our_matrix_makes_the_same_bytes_there(mixture, tmp_path, suffix):
    matrix = tmp_path / f"matrix.{suffix}"
    text = str(mixture.parent / "text.txt")
    assert main(["imatrix", str(mixture), "--text", text, "-o", str(matrix), "-q"]) == 0
    ours, theirs = quantized(mixture, matrix, tmp_path)
    assert differing(ours, theirs) == []


def test_experts_count_their_own_tokens_as_llama_imatrix_does(mixture, tmp_path):
    from ggq.gguf import open_gguf

    out = tmp_path / "ours.gguf"
    text = str(mixture.parent / "text.txt")
    assert main(["imatrix", str(mixture), "--text", text, "-o", str(out), "-q"]) == 0
    theirs = measured(mixture, tmp_path / "theirs.gguf")
    name = "blk.0.ffn_down_exps.weight"
    counts = []
    for path in (out, theirs):
        with open_gguf(path) as file:
            counts.append(file.data(f"{name}.counts").view("<f4").ravel())
    assert len(counts[0]) == N_EXPERT and counts[0].sum() % 256 == 0 and len(set(counts[0])) > 1
    # a tie within float32 may send a token elsewhere
    np.testing.assert_allclose(counts[0], counts[1], atol=0.02 * counts[1].max())
    a, b = (read_imatrix(p).values[name].reshape(N_EXPERT, -1) for p in (out, theirs))
    many = counts[1] > 100
    np.testing.assert_allclose(a[many].mean(1), b[many].mean(1), rtol=0.03)


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ1_S"])
def test_types_that_ggq_only_reads_are_refused_in_one_line(mixture, tmp_path, kind, capsys):
    out = tmp_path / "x.gguf"
    assert main(["convert", str(mixture), str(out), "-t", kind, "-q"]) == 1
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert kind in told and not out.exists()
