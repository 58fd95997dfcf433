"""Heads that predict further tokens: kept in the file, left out of the forward pass, for drafts."""

import numpy as np
import pytest
from floats import distance
from ggufmaker import make_tiny_llama
from hfmaker import save
from schedules import Always
from tinymodels import TINY, make_tiny

import ggq
from ggq import models
from ggq.converters.safetensors import SafetensorsFile
from ggq.errors import UsageError
from ggq.gguf import open_gguf
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.next_n import HEAD
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.heads import _WithEmbedding
from ggq.runtime.generation.drafting import mtp
from ggq.runtime.generation.generation import Options, generate
from ggq.runtime.sampling import SamplingParams

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


def reference(model, ids):
    """Return a head's logits for ids, float64 (len(ids) - 1, n_vocab)."""
    arch, ops, seen = models.get(model.hparams.arch), ReferenceOps(_WithEmbedding(model.gguf)), []
    gather, ops.gather = ops.gather, lambda x: seen.append(x) or gather(x)
    ops.evaluate(model.hparams, ids[:-1])
    (states,) = seen
    if arch.heads_normed:
        states = rms_norm(ops, states, "output_norm", model.hparams.norm_eps)
    head = ReferenceOps(ops.weights)
    head.pictures = np.arange(len(states)), states[None]
    hp = model.speculation.drafter.head._engine.hp
    return head.step(lambda ops: arch.predict(ops, hp), ids[1:])


def test_a_head_computes_what_the_reference_does(made):
    _, folder, ids, _ = made
    with ggq.load(converted(folder, "head.gguf"), n_ctx=256, threads=1) as model:
        engine = model.engine
        head, trunk = model.speculation.drafter.head, engine.sequence()
        assert head.states(ids.tolist()) is None
        engine.evaluate(trunk, ids[:5])
        engine.evaluate(trunk, [*ids[5:-1], 1])  # the last is wrong
        start, states = head.states(ids.tolist())
        assert start == 0
        assert len(states) == len(ids) - 1
        own, want = head.sequence(), reference(model, ids)
        first, _ = head.predict(own, ids[1:4].tolist(), states[:3])
        last, _ = head.predict(own, ids[4:].tolist(), states[3:])
        assert distance(first, want[2]) <= 1e-3
        assert distance(last, want[-1]) <= 1e-3


def test_answers_are_the_same_with_drafts_of_a_head(made, monkeypatch):
    monkeypatch.setattr(mtp, "_SURE", 0.0)  # weights are random
    monkeypatch.setattr(mtp, "_COPIED", 99)
    _, folder, ids, _ = made
    path, found = converted(folder, "drafts.gguf"), []
    for draft in ("off", "mtp"):
        with ggq.load(path, n_ctx=256, threads=1, draft=draft) as model:
            if model.speculation:
                replays = bool(model.engine.cache.state_floats)
                model.speculation = Always(model.speculation.drafter, most=3, replays=replays)
            told, session = [], model.session()
            for seed in (None, 1):
                options = Options(ignore_eos=True, logprobs=2)
                params = SamplingParams(temperature=0.0 if seed is None else 1.2, seed=seed)
                prompt = ids.tolist()
                pieces = generate(session, model.tokenizer, prompt, params, 30, (), options)
                told += [(p.token_id, p.text, p.logprobs) for p in pieces]
            found.append(told)
            assert bool(options.stats.drafted_tokens) == (draft == "mtp")
    assert found[0] == found[1]


def test_heads_are_asked_where_there_are_some(made, tmp_path):
    _, folder, _, _ = made
    with ggq.load(converted(folder, "whole.gguf")) as model:
        assert isinstance(model.speculation.drafter, mtp.HeadDrafter)
    path = make_tiny_llama(tmp_path / "a.gguf")
    with pytest.raises(UsageError, match=r"draft mtp: .*a\.gguf has no heads .*: take ngram"):
        ggq.load(path, draft="mtp")


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
