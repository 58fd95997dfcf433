"""Encoders: hidden states and embeddings as transformers and llama.cpp compute them."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from floats import distance
from tiny.base import PEER
from tinyencoders import ENCODERS, TEXTS, make_encoder

import ggq
from ggq import models
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.tensors import hf_tensors
from ggq.errors import FormatError, ModelError, UsageError
from ggq.gguf import GGUFWriter, open_gguf
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.embedding import Embedder, Tokens, finished
from ggq.runtime.engine.engine import Engine
from ggq.runtime.engine.weights import Weights

TYPES = ("Q8_0", "Q4_0", "F16")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes a tiny encoder: (HF folder, GGUF path, hidden states)."""
    done = {}

    def make(label, pooling="mean_tokens"):
        if (label, pooling) not in done:
            folder = tmp_path_factory.mktemp(f"{label}-{pooling}")
            hidden = make_encoder(label, folder, pooling)
            (path,) = ggq.convert(folder, folder / "model.gguf", type="F32")
            done[label, pooling] = folder, path, hidden
        return done[label, pooling]

    return make


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("label", ENCODERS)
def test_back_ends_agree_with_transformers(label, made):
    from ggq.runtime.backends.torch.backend import TorchOps

    folder, path, hidden = made(label)
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    with ggq.load(path, threads=1, cache_type="f32") as model:
        assert model.n_ctx == 512 and not model.hparams.causal
        weights, forward = Weights(model.gguf), models.get(ENCODERS[label].arch).forward
        for text in TEXTS:
            ids = model.tokenize(text)
            assert ids == tokenizer(text)["input_ids"]
            want = hidden(ids)
            assert distance(ReferenceOps(weights).evaluate(model.hparams, ids), want) <= 1e-4
            rows = TorchOps(weights).step(lambda ops: forward(ops, model.hparams), ids)
            assert distance(rows.detach().numpy(), want) <= 1e-4
            with np.errstate(all="raise"):
                got = model.embed([text])[0]
            np.testing.assert_allclose(got, unit(want.mean(axis=0)), atol=2e-5)
        assert max(len(model.tokenize(text)) for text in TEXTS) > 100
        assert model.engine.n_ctx == 512
        assert model.engine.cache.free_positions == model.engine.cache.n_ctx  # all given back


@pytest.mark.parametrize("label", ENCODERS)
def test_a_torch_device_agrees(label, made):
    import torch

    from ggq.runtime.engine.torch.backend import DeviceBackend
    from ggq.runtime.engine.torch.weights import DeviceWeights

    _, path, hidden = made(label)
    with ggq.load(path) as model:
        weights = DeviceWeights(Weights(model.gguf), torch.device("cpu"), "f16")
        sizes = {"n_ctx": 512, "cache_type": "f32"}
        backend = DeviceBackend(models.get(ENCODERS[label].arch), model.hparams, weights, **sizes)
        engine = Engine(model.hparams, backend)
        for text in TEXTS:
            ids = model.tokenize(text)
            want = unit(hidden(ids).mean(axis=0))
            (got,) = Embedder(engine, {}).vectors([Tokens(ids)])
            np.testing.assert_allclose(finished(got), want, atol=3e-3)


@pytest.mark.parametrize("label", ENCODERS)
def test_long_texts_are_seen_whole(label, made):
    """Beyond 256 tokens, which decoders take in steps; beyond 512 nothing is possible."""
    _, path, hidden = made(label)
    ids = np.random.default_rng(1).integers(5, 80, 512)
    with ggq.load(path, threads=2, n_ctx=9999, cache_type="f32") as model:
        assert model.n_ctx == 512
        want = unit(hidden(ids).mean(axis=0))
        (got,) = model.embedder.vectors([Tokens(ids)])
        np.testing.assert_allclose(finished(got), want, atol=2e-5)
        with pytest.raises(UsageError, match="513 tokens"):
            model.embedder.vectors([Tokens([*ids, 7])])


@pytest.mark.parametrize("pooling, pick", [("cls_token", 0), ("lasttoken", -1)])
def test_pooling_of_the_folder_is_kept(pooling, pick, made):
    _, path, hidden = made("bert", pooling)
    with ggq.load(path, threads=1, cache_type="f32") as model:
        assert model.gguf.metadata["bert.pooling_type"] == {0: 2, -1: 3}[pick]
        want = unit(hidden(model.tokenize(TEXTS[1]))[pick])
        np.testing.assert_allclose(model.embed(TEXTS[1:2])[0], want, atol=2e-5)


def test_unknown_poolings_are_named(tmp_path):
    folder = tmp_path / "1_Pooling"
    folder.mkdir()
    (tmp_path / "config.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(FormatError, match="only mean, cls and lasttoken"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("label", ENCODERS)
def test_small_types_stay_close(label, type_name, made):
    folder, _, hidden = made(label)
    (small,) = ggq.convert(folder, folder / f"{type_name}.gguf", type=type_name)
    worst = {"Q8_0": 0.995, "F16": 0.99999, "Q4_0": 0.5}[type_name]
    with ggq.load(small, threads=1) as model:
        for text in TEXTS:
            ids, got = model.tokenize(text), model.embed([text])[0]
            own = ReferenceOps(Weights(model.gguf)).evaluate(model.hparams, ids).mean(axis=0)
            assert got @ unit(own) >= 0.998  # activations are rounded to 8 bit
            assert got @ unit(hidden(ids).mean(axis=0)) >= worst
    with open_gguf(small) as file:
        for name in {"token_types.weight", "position_embd.weight"} & {*file.tensors}:
            assert file.tensors[name].type_id == 0


@pytest.mark.parametrize("label", ENCODERS)
def test_every_tensor_is_consumed_once_and_known(label, made):
    folder, path, _ = made(label)
    checkpoint = Checkpoint(folder)
    found = models.for_hf(checkpoint.config)
    assert found.name == ENCODERS[label].arch
    hp = found.hparams(checkpoint.config)
    tensors, skipped = hf_tensors(checkpoint, found, hp)
    used = [p.name for t in tensors for p in t.parts]
    assert len(used) == len(set(used)) and set(used) | set(skipped) == set(checkpoint.tensors)
    assert all(name.startswith("pooler.") for name in skipped)
    with open_gguf(path) as file:
        assert set(file.tensors) == {name for name, _, _ in found.rows(hp)} - missing(
            found, file, hp
        )
        found.check(file, found.hparams(file))


def missing(arch, file, hp):
    """Return the optional tensors that the file does without."""
    return {n for n, row, _ in arch.rows(hp) if row.optional and n not in file.tensors}


@pytest.mark.parametrize("label", [e.label for e in ENCODERS.values() if e.peer])
def test_llama_cpp_reads_the_file_alike(label, made):
    llama_cpp = pytest.importorskip("llama_cpp")
    _, path, hidden = made(label)
    peer = llama_cpp.Llama(
        str(path), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, n_threads=1, verbose=False
    )
    with ggq.load(path, threads=1, cache_type="f32") as model:
        for text in TEXTS:
            ids = model.tokenize(text)
            assert peer.tokenize(text.encode(), special=False) == ids
            theirs = unit(np.array(peer.embed(text)))
            assert np.abs(theirs - model.embed([text])[0]).max() <= PEER
            assert np.abs(theirs - unit(hidden(ids).mean(axis=0))).max() <= PEER


def test_old_names_and_prefixes_are_known(made):
    """bert-base-uncased says gamma and beta and puts ``bert.`` before everything."""
    checkpoint = Checkpoint(made("bert")[0])
    arch = models.get("bert")
    hp = arch.hparams(checkpoint.config)
    plain, _ = hf_tensors(checkpoint, arch, hp)

    def old(name):
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")

    checkpoint.tensors = {old(n): replace(t, name=old(n)) for n, t in checkpoint.tensors.items()}
    checkpoint.tensors["cls.predictions.bias"] = None
    again, skipped = hf_tensors(checkpoint, arch, hp)
    assert [t.name for t in again] == [t.name for t in plain]
    assert "cls.predictions.bias" in skipped


def test_adapters_for_tasks_are_left_out_and_told(made, tmp_path):
    """jina's own checkpoints have them beside each weight, which is called otherwise then."""
    from hfmaker import save

    folder, path, _ = made("jina-bert-v3")
    arrays = {n: t.read(slice(None)) for n, t in Checkpoint(folder).tensors.items()}
    own = {}
    for name, array in arrays.items():
        if array.shape[0] == 1 and not name.endswith("token_type_embeddings.weight"):
            own[name] = array.ravel()
            continue
        stem = name.removesuffix(".weight") + ".parametrizations.weight"
        own[f"{stem}.original"] = array
        own[f"{stem}.0.lora_A"] = np.ones((2, 4, 8), np.float32)
    save(tmp_path, {f"roberta.{n}": a for n, a in own.items()})
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}
    config |= {"lora_adaptations": ["retrieval.query", "separation"], "lora_alpha": 1}
    config |= {"rotary_emb_base": 20000.0, "position_embedding_type": "rotary"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    told = ggq.convert(tmp_path, tmp_path / "x.gguf", type="F32")
    assert any("left out (retrieval.query, separation)" in line for line in told.warnings)
    with open_gguf(path) as want, open_gguf(told[0]) as got:
        assert set(want.tensors) == set(got.tensors)
        assert all((want.data(n) == got.data(n)).all() for n in want.tensors)


def test_older_files_hold_gate_and_up_apart(made, tmp_path):
    _, path, _ = made("jina-bert-v2")
    made_of = {}
    with GGUFWriter(tmp_path / "x.gguf") as writer, open_gguf(path) as file:
        for name, tensor in file.tensors.items():
            data, shape = file.data(name), tensor.shape
            if "ffn_up" in name:
                half = shape[0] // 2
                made_of[name.replace("ffn_up", "ffn_gate")] = data[:half], (half, shape[1])
                data, shape = data[half:], (half, shape[1])
            made_of[name] = data, shape
        writer.copy_metadata(file.metadata)
        for name, (_, shape) in made_of.items():
            writer.add_tensor(name, shape, 0)
        writer.begin()
        for name, (data, _) in made_of.items():
            writer.write(name, data)
    with ggq.load(path, threads=1) as new, ggq.load(tmp_path / "x.gguf", threads=1) as old:
        np.testing.assert_array_equal(old.embed(TEXTS), new.embed(TEXTS))


def test_other_encoders_are_refused_by_name(made):
    config = Checkpoint(made("bert")[0]).config
    with pytest.raises(ModelError, match=r"hidden_act is 'relu', bert is converted with gelu only"):
        models.get("bert").hparams({**config, "hidden_act": "relu"})
    jina = Checkpoint(made("jina-bert-v2")[0]).config
    for name, value in (("feed_forward_type", "reglu"), ("position_embedding_type", "absolute")):
        with pytest.raises(ModelError, match=f"{name} is '{value}', jina-bert-v2 is converted"):
            models.get("jina-bert-v2").hparams({**jina, name: value})
    nomic = Checkpoint(made("nomic-bert")[0]).config
    with pytest.raises(ModelError, match="moe_every_n_layers is 2"):
        models.get("nomic-bert").hparams({**nomic, "moe_every_n_layers": 2})
    published = {"n_embd": 64, "n_head": 4, "n_inner": 96, "n_layer": 3, "n_positions": 8192}
    published |= {"max_trained_positions": 2048, "rotary_emb_base": 1000, "vocab_size": 89}
    published |= {"architectures": ["NomicBertModel"], "activation_function": "swiglu"}
    hp = models.get("nomic-bert").hparams(published)
    assert (hp.n_ctx_train, hp.rope.base, hp.n_token_types) == (2048, 1000.0, 2)


def test_an_encoder_writes_no_text_and_says_so(made, capsys, monkeypatch):
    from ggq.cli import main

    _, path, _ = made("bert")
    line = r"bert is an encoder: it embeds texts \(model.embed, /v1/embeddings\), it does not write"
    with ggq.load(path, threads=1) as model:
        for ask in (
            lambda: model.session(),
            lambda: model.logits([2, 5, 3]),
            lambda: list(model.generate("fox")),
            lambda: list(model.chat([{"role": "user", "content": "fox"}])),
        ):
            with pytest.raises(UsageError, match=line):
                ask()
    for command in (["run", str(path), "fox"], ["chat", str(path)], ["bench", str(path)]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"hello\n")))
        assert main(command) != 0
        said = capsys.readouterr().err
        assert len([n for n in said.splitlines() if "bert is an encoder" in n]) == 1, said
        assert "Traceback" not in said


def test_the_server_embeds_and_refuses_to_chat(made):
    testclient = pytest.importorskip("starlette.testclient")
    from servers import make_app

    from ggq.runtime.server.slots import make_scheduler

    _, path, hidden = made("bert")
    with ggq.load(path, threads=1, cache_type="f32") as model:
        scheduler = make_scheduler(model, n_slots=2)
        scheduler.engine.warm_up()
        scheduler.start()
        try:
            client = testclient.TestClient(make_app(model, scheduler))
            answer = client.post("/v1/embeddings", json={"input": list(TEXTS)}).json()
            for text, item in zip(TEXTS, answer["data"], strict=True):
                want = unit(hidden(model.tokenize(text)).mean(axis=0))
                np.testing.assert_allclose(item["embedding"], want, atol=2e-5)
            body = {"messages": [{"role": "user", "content": "hi"}]}
            refused = client.post("/v1/chat/completions", json=body)
            assert refused.status_code == 400
            assert "bert is an encoder" in refused.json()["error"]["message"]
        finally:
            scheduler.close()


@pytest.mark.parametrize("label", ENCODERS)
def test_export_gives_transformers_the_same_model(label, made, tmp_path):
    import torch
    import transformers

    from ggq.converters.export import export

    _, path, hidden = made(label)
    if not models.get(ENCODERS[label].arch).exports:
        with pytest.raises(
            ModelError, match=f"{ENCODERS[label].arch}: writing it .*is not supported"
        ):
            export(path, tmp_path / "hf", "f32")
        return
    folder = export(path, tmp_path / "hf", "f32")
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    with torch.no_grad():
        got = model(torch.as_tensor(ids)[None]).last_hidden_state[0].numpy()
    assert distance(got, hidden(ids)) <= 1e-4
