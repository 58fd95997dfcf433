"""Texts' vectors in use: bare decoders, poolings, prompts, dimensions, dense layers, packing."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hfmaker import make_bpe, save
from tiny.base import BASE
from tinyencoders import ENCODERS, TEXTS, make_encoder, make_model
from tinymodels import TINY, spread

import ggq
from ggq import models
from ggq.cli import main
from ggq.errors import FormatError, ModelError, UsageError

BARE = {  # class without its head -> settings
    "Llama": {},
    "Mistral": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16},
    "Gemma3Text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
    "Olmo2": {},
}
PROMPTS = {"query": "a box: ", "document": "the dog: "}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_bare(name, folder):
    """Write a decoder without its head; return a function to its hidden states."""
    import torch
    import transformers

    torch.manual_seed(2)
    settings = BASE | BARE[name] | {"vocab_size": make_bpe(folder)}
    config = getattr(transformers, f"{name}Config")(**settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}Model")(config).float().eval()
    with torch.no_grad():
        spread(torch, model)
    model.save_pretrained(folder)

    def hidden(ids):
        with torch.no_grad():
            return model(torch.as_tensor(ids)[None]).last_hidden_state[0].numpy()

    return hidden


@pytest.mark.parametrize("name", BARE)
def test_decoders_without_a_head_embed(name, tmp_path):
    hidden = make_bare(name, tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    (path,) = ggq.convert(tmp_path, tmp_path / "x.gguf", type="F32")
    with ggq.load(path, threads=1, cache_type="f32") as model:
        for text in TEXTS[:3]:
            want = hidden(model.tokenize(text))
            np.testing.assert_allclose(model.embed(text)[0], unit(want[-1]), atol=1e-3)
            mean = model.embed(text, pooling="mean")[0]
            np.testing.assert_allclose(mean, unit(want.mean(axis=0)), atol=1e-3)
            rows = model.embed(text, pooling="none", normalize=False)[0]
            assert np.abs(rows - want).max() <= 1e-3 * np.abs(want).max()
        if not model.hparams.readout.output_head:
            with pytest.raises(UsageError, match="has no output head: it embeds or ranks texts"):
                list(model.generate("fox"))
        else:
            assert name.startswith("Gemma")  # their head is the embedding


def test_every_decoder_is_known_by_its_other_classes():
    seen = set()
    for arch in models.all_architectures():
        for name in arch.hf_classes:
            if name.endswith("ForCausalLM"):
                stem = name.removesuffix("ForCausalLM")
                with_head = models.for_hf({"architectures": [name]})
                for other in (f"{stem}Model", f"{stem}ForSequenceClassification"):
                    assert models.for_hf({"architectures": [other]}) is with_head
                    seen.add(other)
    assert len(seen) >= 2 * len({t.cls for t in TINY if t.suffix == "ForCausalLM"}) - 4
    assert models.for_hf({"architectures": ["Gemma3TextModel"]}).name == "gemma3"
    both = {"architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True}
    assert models.for_hf(both).name == "gemma-embedding"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Return (HF folder, GGUF path, hidden states) of a tiny BERT with prompts."""
    folder = tmp_path_factory.mktemp("bert")
    hidden = make_encoder("bert", folder, "mean_tokens")
    said = {"prompts": PROMPTS, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    (path,) = ggq.convert(folder, folder / "model.gguf", type="F32")
    return folder, path, hidden


def test_poolings_prompts_and_dimensions(bert):
    _, path, hidden = bert
    with ggq.load(path, threads=1, cache_type="f32") as model:
        want = hidden(model.tokenize(TEXTS[1]))
        for pooling, row in (("cls", want[0]), ("last", want[-1]), ("mean", want.mean(axis=0))):
            got = model.embed(TEXTS[1], pooling=pooling)[0]
            np.testing.assert_allclose(got, unit(row), atol=2e-5)
        cut = model.embed(TEXTS[1], dimensions=16)[0]
        np.testing.assert_allclose(cut, unit(want.mean(axis=0)[:16]), atol=2e-5)
        plain = model.embed(TEXTS[1], normalize=False)[0]
        np.testing.assert_allclose(plain, want.mean(axis=0), atol=1e-4)
        for more in ({"prompt_name": "query"}, {"prompt": PROMPTS["query"]}):
            np.testing.assert_array_equal(
                model.embed("fox", **more), model.embed(PROMPTS["query"] + "fox")
            )
        assert model.documents.prompts == PROMPTS


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"pooling": "max"}, "pooling max: one of none, mean, cls, last, rank"),
        ({"pooling": "rank"}, "pooling rank: this bert file has no classifier"),
        ({"dimensions": 65}, "dimensions 65: the model has 64"),
        ({"dimensions": 0}, "dimensions 0: the model has 64"),
        ({"prompt_name": "poem"}, "prompt name 'poem': the file has query, document"),
        ({"prompt_name": "query", "prompt": "x"}, "give a prompt or its name, not both"),
    ],
)
def test_what_the_model_cannot_do_is_told(more, line, bert):
    with ggq.load(bert[1], threads=1) as model, pytest.raises(UsageError, match=line):
        model.embed("fox", **more)


def test_the_default_prompt_goes_before_texts(bert, tmp_path):
    folder, _, _ = bert
    path = folder / "config_sentence_transformers.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "default_prompt_name": "document"}))
    try:
        (made,) = ggq.convert(folder, tmp_path / "x.gguf", type="F32")
    finally:
        path.write_text(json.dumps(said))
    with ggq.load(made, threads=1) as model:
        plain, named = model.embed("fox"), model.embed("fox", prompt_name="document")
        np.testing.assert_array_equal(plain, named)
        assert (plain != model.embed("fox", prompt="")).any()


@pytest.mark.parametrize("label", ENCODERS)
def test_neighbours_in_a_step_change_no_bit(label, tmp_path):
    make_encoder(label, tmp_path, "mean_tokens")
    (path,) = ggq.convert(tmp_path, tmp_path / "x.gguf", type="Q8_0")
    texts = [t[i : i + 40] for t in TEXTS for i in range(0, len(t), 37)][:24]
    with ggq.load(path, threads=2) as model:
        together = model.embed(texts)
        alone = np.stack([model.embed(text)[0] for text in texts])
    np.testing.assert_array_equal(together, alone)


def test_short_texts_share_steps(bert, monkeypatch):
    from ggq.runtime.engine.engine import Engine

    steps, step = [], Engine.step
    monkeypatch.setattr(Engine, "step", lambda s, p, o: (steps.append(len(p)), step(s, p, o))[1])
    with ggq.load(bert[1], threads=1) as model:
        model.embed(["fox and dog"] * 40)
        assert steps == [40]
        model.embed([TEXTS[3]] * 40)
    assert 2 < len(steps) < 40 and sum(steps) == 80


def test_too_long_texts_are_told_or_cut(bert):
    _, path, _ = bert
    with ggq.load(path, threads=1) as model:
        with pytest.raises(UsageError, match="a text of 902 tokens: 512 are possible"):
            model.embed("fox " * 900)
        got = model.embed("fox " * 900, truncate=True)
        np.testing.assert_array_equal(got, model.embed("fox " * 510))


# -- dense layers and modules


def add_modules(folder, *layers):
    """Give a folder sentence-transformers' dense layers: (rows, columns, activation, bias)."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]
    kinds = "sentence_transformers.models."
    modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kinds}Pooling"})
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    weights = []
    rng = np.random.default_rng(4)
    for number, (rows, columns, activation, bias) in enumerate(layers, 2):
        inner = folder / f"{number}_Dense"
        inner.mkdir()
        weight = rng.standard_normal((rows, columns)).astype(np.float32) / 8
        shift = rng.standard_normal(rows).astype(np.float32) if bias else None
        tensors = {"linear.weight": weight} | ({"linear.bias": shift} if bias else {})
        save(inner, tensors)
        name = f"torch.nn.modules.{activation}"
        said = {"in_features": columns, "out_features": rows, "activation_function": name}
        (inner / "config.json").write_text(json.dumps(said | {"bias": bias}))
        modules.append({"idx": number, "name": "x", "path": inner.name, "type": f"{kinds}Dense"})
        weights.append((weight, shift))
    modules.append({"idx": 9, "name": "9", "path": "9_Normalize", "type": f"{kinds}Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))
    return weights


def test_dense_layers_follow_pooling(tmp_path):
    import torch

    model = make_model(ENCODERS["gemma-embedding"], tmp_path)
    identity = "linear.Identity", False
    (a, _), (b, _) = add_modules(tmp_path, (96, 64, *identity), (64, 96, *identity))
    (path,) = ggq.convert(tmp_path, tmp_path / "x.gguf", type="F32")
    with ggq.load(path, threads=1, cache_type="f32") as found:
        assert found.gguf.metadata["gemma-embedding.dense_2_feat_out"] == 96
        ids = found.tokenize(TEXTS[0])
        with torch.no_grad():
            hidden = model(torch.as_tensor(ids)[None]).last_hidden_state[0].numpy()
        want = unit(hidden.mean(axis=0) @ a.T @ b.T)
        np.testing.assert_allclose(found.embed(TEXTS[0])[0], want, atol=1e-4)
        llama_cpp = pytest.importorskip("llama_cpp")
        peer = llama_cpp.Llama(str(path), embedding=True, n_ctx=256, n_threads=1, verbose=False)
        theirs = unit(np.array(peer.embed(TEXTS[0])))
        assert np.abs(theirs - want).max() <= 4e-3


def test_a_dense_layer_with_tanh_and_bias(tmp_path):
    hidden = make_encoder("bert", tmp_path, "mean_tokens")
    ((weight, shift),) = add_modules(tmp_path, (24, 64, "activation.Tanh", True))
    (path,) = ggq.convert(tmp_path, tmp_path / "x.gguf", type="Q8_0")
    with ggq.load(path, threads=1) as model:
        want = hidden(model.tokenize(TEXTS[0])).mean(axis=0) @ weight.T + shift
        got = model.embed(TEXTS[0])[0]
        assert got.shape == (24,) and got @ unit(np.tanh(want)) > 0.999
        with pytest.raises(UsageError, match="dimensions 25: the model has 24"):
            model.embed("fox", dimensions=25)
        with pytest.raises(ModelError, match="dense layers after pooling: writing their folders"):
            from ggq.converters.export import export

            export(path, tmp_path / "hf")


@pytest.mark.parametrize(
    ("module", "error", "line"),
    [
        (
            {"type": "sentence_transformers.models.LSTM", "path": "2_LSTM"},
            ModelError,
            "LSTM is not",
        ),
        ({"type": "x.Dense", "path": "../up"}, FormatError, "path '../up' is no folder"),
        ({"type": "x.Dense", "path": "2_Dense"}, FormatError, "no in_features and out_features"),
        ({"type": "x.LogitScore", "path": "2_L"}, ModelError, "LogitScore is converted of Qwen3"),
    ],
)
def test_modules_that_files_cannot_say_are_refused(module, error, line, bert, tmp_path):
    from ggq.converters.checkpoint.folder import Checkpoint

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert[0] / name).read_bytes())
    entries = [{"type": "sentence_transformers.models.Transformer", "path": ""}, module]
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(error, match=line):
        Checkpoint(tmp_path)


# -- commands and server


def test_commands_print_vectors(bert, capsys, tmp_path):
    path = str(bert[1])
    assert main(["embed", path, "fox", "a dog", "--dimensions", "8", "-t", "1"]) == 0
    rows = [list(map(float, line.split())) for line in capsys.readouterr().out.splitlines()]
    assert np.shape(rows) == (2, 8) and np.allclose(np.linalg.norm(rows, axis=1), 1)
    (tmp_path / "t.txt").write_text("fox\n\na dog\n")
    assert main(["embed", path, "-f", str(tmp_path / "t.txt"), "--json", "-t", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [x["text"] for x in lines] == ["fox", "a dog"] and len(lines[0]["embedding"]) == 64
    for arguments, line in (
        (["rerank", path, "q", "fox"], "this bert file is no reranker: it embeds texts"),
        (["classify", path, "fox"], "pooling rank: this bert file has no classifier"),
        (["embed", path, "fox", "--dimensions", "65"], "dimensions 65: the model has 64"),
        (["embed", path, "-f", "/nowhere"], "/nowhere: No such file"),
    ):
        assert main(arguments) != 0
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and line in said[0], said
