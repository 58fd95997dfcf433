"""Heads that predict further tokens: kept in the file, read back, left out of the forward pass."""

import numpy as np
import pytest
from floats import distance
from hfmaker import save
from tinymodels import TINY, make_tiny

import ggq
from ggq import models
from ggq.converters.safetensors import SafetensorsFile
from ggq.gguf import open_gguf
from ggq.models.layers.next_n import HEAD

# label -> where a checkpoint has its heads: names of tensors that make one, of those of a layer.
AROUND = {"eh_proj": (64, 128), "enorm": (64,), "hnorm": (64,), "shared_head.norm": (64,)}
BESIDE = dict(zip(("fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"),
                  AROUND.values(), strict=True))  # fmt: skip
LABELS = {
    "glm4moe norms": ("model.layers.2.", "model.layers.3.", AROUND, "model.layers.3."),
    "qwen35": ("model.layers.3.", "mtp.layers.0.", BESIDE, "mtp."),
    "qwen35moe": ("model.layers.3.", "mtp.layers.0.", BESIDE, "mtp."),
    "qwen3next": ("model.layers.3.", "mtp.layers.0.", BESIDE, "mtp."),
}


@pytest.fixture(scope="module", params=LABELS)
def made(request, tmp_path_factory):
    """Return (label, folder with a head, ids, transformers' logits)."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    tiny = next(t for t in TINY if t.label == request.param)
    ids, want = make_tiny(tiny, folder)
    add_head(folder, *LABELS[request.param])
    return tiny, folder, ids, want


def add_head(folder, source, layer, around, prefix):
    """Give a checkpoint a head: its last layer again, and what joins two inputs."""
    rng = np.random.default_rng(11)
    file = SafetensorsFile(folder / "model.safetensors")
    arrays = {n: np.array(t.read(slice(None))).reshape(t.shape) for n, t in file.tensors.items()}
    copies = {n.replace(source, layer): x[::-1] for n, x in arrays.items() if n.startswith(source)}
    more = {f"{prefix}{n}.weight": rng.standard_normal(shape) for n, shape in around.items()}
    save(folder, {n: np.float32(x) for n, x in {**arrays, **copies, **more}.items()})


def converted(folder, name, **settings):
    (path,) = ggq.convert(folder, folder / name, type="F32", force=True, **settings)
    return path


def logits(path, ids):
    with ggq.load(path, n_ctx=256, threads=1) as model:
        return model.engine.evaluate(model.engine.sequence(), ids, every=True)


def test_heads_are_kept_and_not_computed(made):
    tiny, folder, ids, want = made
    path = converted(folder, "whole.gguf")
    with open_gguf(path) as file:
        arch = models.get(tiny.arch)
        hp = arch.hparams(file)
        n = hp.n_layer
        assert len(hp.heads) == file.metadata[f"{tiny.arch}.nextn_predict_layers"] == 1
        assert file.metadata[f"{tiny.arch}.block_count"] == n + 1
        arch.check(file, hp)
        assert set(file.tensors) <= {name for name, _, _ in arch.rows(hp)}
        assert HEAD.format(i=n) in file.tensors
    assert distance(logits(path, ids), want) <= 1e-3


def test_files_without_heads_are_as_if_there_were_none(made):
    tiny, folder, ids, want = made
    path = converted(folder, "trunk.gguf", mtp=False)
    with open_gguf(path) as file:
        assert f"{tiny.arch}.nextn_predict_layers" not in file.metadata
        assert not any("nextn" in name for name in file.tensors)
        assert models.get(tiny.arch).hparams(file).heads == ()
    assert distance(logits(path, ids), want) <= 1e-3


def test_llama_cpp_reads_files_with_heads(made, shared_dir, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.syspath_prepend(shared_dir / "tools")
    from peer import Peer

    tiny, folder, ids, want = made
    engine = Peer(str(converted(folder, "peer.gguf")), n_ctx=256, threads=1)
    try:
        assert distance(engine.logits(list(ids)), want) <= tiny.peer
    finally:
        engine.close()


def test_passes_leave_heads_alone(made, tmp_path):
    """Nothing evaluates them: they are rounded plainly, the other tensors as without them."""
    _, folder, _, _ = made
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog " * 900)
    passes = {"calibration": text, "prepasses": ["gptq:tokens=1024,sweeps=0,n_ctx=64"]}
    files = [
        ggq.convert(folder, tmp_path / f"{mtp}.gguf", type="Q4_0", mtp=mtp, **passes)[0]
        for mtp in (True, False)
    ]
    with open_gguf(files[0]) as whole, open_gguf(files[1]) as trunk:
        for name in trunk.tensors:
            np.testing.assert_array_equal(whole.data(name), trunk.data(name), name)
