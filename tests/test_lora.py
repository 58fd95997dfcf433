"""Adapters beside a model's weights: equal sums, side by side in a batch, and kept apart."""

import numpy as np
import pytest
from hfmaker import make_hf
from loramaker import make_lora
from schedules import ask
from test_lora_convert import SMALL, tensors_of

import ggq
from ggq.gguf import GGUFWriter, open_gguf, spec
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.cache.identity import identity_of

IDS = np.random.default_rng(4).integers(3, 200, 40).tolist()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a model, two adapters and the model with either merged."""
    folder = tmp_path_factory.mktemp("lora")
    base = make_hf(folder / "hf", **SMALL)
    shapes = {n: x.shape for n, x in tensors_of(base / "model.safetensors").items() if x.ndim == 2}
    shapes.pop("model.embed_tokens.weight")
    ggq.convert(base, folder / "base.gguf", type="F32")
    ggq.convert(base, folder / "q4.gguf", type="Q4_0")
    for name, seed, rank in (("one", 1, 4), ("two", 2, 20)):
        targets = ("q_proj", "v_proj", "gate_proj", "down_proj", "lm_head")
        lora = make_lora(folder / name, shapes, targets, rank=rank, alpha=2 * rank, seed=seed)
        ggq.convert(lora, folder / f"{name}.gguf", base=base)
        ggq.convert(base, folder / f"{name}-merged.gguf", type="F32", merge_lora=[lora])
    return folder


def logits(path, *lora, ids=IDS, **more):
    with ggq.load(path, n_ctx=128, cache_type="f32", lora=lora, **more) as model:
        return model.logits(ids)


def test_an_adapter_beside_a_model_is_the_merged_model(made):
    base = made / "base.gguf"
    for name in ("one", "two"):
        want = logits(made / f"{name}-merged.gguf")
        got = logits(base, made / f"{name}.gguf")
        assert np.abs(got - want).max() < 1e-5 * np.ptp(want)
    assert np.abs(logits(base) - want).max() > 0.01 * np.ptp(want)


def test_a_scale_of_zero_is_the_model_alone_bit_for_bit(made):
    for file in ("base.gguf", "q4.gguf"):
        assert np.array_equal(logits(made / file, f"{made / 'one.gguf'}=0"), logits(made / file))


def test_scales_are_followed_and_added(made):
    base, one, two = (made / f"{n}.gguf" for n in ("base", "one", "two"))
    half = logits(base, f"{one}=0.5")
    assert np.abs(logits(base, f"{one}=0.25", f"{one}=0.25") - half).max() < 1e-5 * np.ptp(half)
    both, other = logits(base, one, two), logits(base, two, one)
    assert np.abs(both - other).max() < 1e-5 * np.ptp(both)


def test_sums_do_not_depend_on_steps_or_threads(made):
    want = logits(made / "q4.gguf", made / "one.gguf", made / "two.gguf", threads=1)
    files = [made / "one.gguf", made / "two.gguf"]
    with ggq.load(made / "q4.gguf", n_ctx=128, cache_type="f32", lora=files, threads=2) as model:
        for sizes in ([1] * 40, [3, 9, 1, 27], [17, 23]):
            sequence, at = model.engine.sequence(), 0
            for size in sizes:
                rows = model.engine.evaluate(sequence, IDS[at : at + size], every=True)
                assert np.array_equal(rows, want[at : at + size])
                at += size
            sequence.free()


def test_requests_side_by_side_have_their_own_adapters(made):
    files = [made / "one.gguf", made / "two.gguf"]
    mixes = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, -1.0), None]
    with ggq.load(made / "q4.gguf", n_ctx=1024, lora=files) as model:
        s = Scheduler(model.engine, model.tokenizer, n_slots=5)

        def answers(batch):
            asked = [ask(s, IDS, max_tokens=12, ignore_eos=True, mix=mix)[1] for mix in batch]
            while s.n_running or s.n_waiting:
                s.step()
            return [tuple(p.token_id for p in a.pieces) for a in asked]

        alone = [answers([mix])[0] for mix in mixes]
        assert len(set(alone)) >= 4  # they differ
        s._store.clear()
        assert answers(mixes) == alone
        assert answers(mixes[::-1]) == alone[::-1]  # from the cache: each from its own prefix
        s._store.clear()


def test_prefixes_of_other_mixes_are_not_taken(made):
    with ggq.load(made / "base.gguf", n_ctx=512, lora=[made / "one.gguf"]) as model:
        s = Scheduler(model.engine, model.tokenizer, n_slots=1)
        cached = []
        for mix in ((1.0,), (0.5,), (1.0,)):
            ticket, _ = ask(s, IDS, max_tokens=2, mix=mix)
            while s.n_running or s.n_waiting:
                s.step()
            cached.append(ticket.cached_tokens)
        assert cached[:2] == [0, 0] and cached[2] > 30
        s._store.clear()


def test_states_on_disk_are_of_the_adapters_and_their_scales(made, tmp_path, monkeypatch):
    monkeypatch.setattr("ggq.runtime.model.user_cache_dir", lambda: tmp_path)
    ids = np.arange(3, 403) % 190 + 3
    want = {}
    for lora in ((), ("one",), ("two",), ("one=0.5",)):
        given = [str(made / n.replace("one", "one.gguf").replace("two", "two.gguf")) for n in lora]
        for disk in (None, "1G", "1G"):
            options = {"n_ctx": 512, "lora": given, "cache_disk": disk}
            with ggq.load(made / "base.gguf", **options) as model:
                session = model.session()
                session.recall(ids)
                rows = session.evaluate(ids[len(session.ids) :])
                assert np.array_equal(want.setdefault(lora, rows), rows)
    with ggq.load(made / "base.gguf", n_ctx=64) as model, open_gguf(made / "one.gguf") as one:
        cache = model.engine.cache
        names = [identity_of(model.gguf, model.hparams, cache, a) for a in ((), (one,))]
    assert names[0] != names[1]


def write_adapter(path, tensors, **keys):
    said = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama"}
    with GGUFWriter(path) as writer:
        for key, value in {**said, "adapter.lora.alpha": 8.0, **keys}.items():
            writer.add(key.replace("__", "."), value)
        for name, shape in tensors.items():
            writer.add_tensor(name, shape, spec.TYPE_IDS["F32"])
        writer.begin()
        for name, shape in tensors.items():
            writer.write(name, np.ones(shape, np.float32).view(np.uint8))
    return path


A, B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"
FINE = {A: (4, 64), B: (64, 4)}


@pytest.mark.parametrize(
    ("tensors", "keys", "word"),
    [
        (FINE, {"general__architecture": "qwen2"}, "is an adapter of qwen2"),
        (FINE, {"general__type": "model"}, "no LoRA adapter"),
        ({A: (4, 64)}, {}, "no tensor blk.0.attn_q.weight.lora_b"),
        ({A: (4, 64), B: (64, 5)}, {}, "ranks differ"),
        ({A: (4, 64), B: (96, 4)}, {}, "another model's"),
        ({n.replace("0", "9"): s for n, s in FINE.items()}, {}, "no such tensor"),
        (
            {n.replace("blk.0.attn_q", "token_embd"): s for n, s in FINE.items()},
            {},
            "not applied as it runs",
        ),
        ({**FINE, "blk.0.attn_norm.weight": (64,)}, {}, "no part of a LoRA"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_opened(made, tmp_path, tensors, keys, word):
    path = write_adapter(tmp_path / "a.gguf", tensors, **keys)
    with pytest.raises(ggq.GGQError, match=word) as error:
        ggq.load(made / "base.gguf", lora=[path])
    assert "\n" not in str(error.value)


def test_wrong_options_are_told(made):
    for given, word in (
        ([f"{made / 'one.gguf'}=much"], "FILE=SCALE"),
        ([made / "one"], "is a folder"),
        ([made / "none.gguf"], "none.gguf"),
        ([made / "one.gguf"] * 17, "16 adapters at most"),
    ):
        with pytest.raises(ggq.GGQError, match=word):
            ggq.load(made / "base.gguf", lora=given)
    with pytest.raises(ggq.GGQError, match="without the weights"):
        ggq.load(made / "base.gguf", lora=[made / "one.gguf"], vocab_only=True)
