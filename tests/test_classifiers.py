"""Classifiers and rerankers: scores as transformers computes them, of encoders and of decoders."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hfmaker import make_bpe, save
from safetensors.numpy import load_file
from tiny.base import BASE, PEER, fused, renamed
from tinyencoders import ENCODERS, TEXTS, make_tokenizer
from tinymodels import spread

import ggq
from ggq import models
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.tensors import hf_tensors
from ggq.errors import ModelError, UsageError
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.weights import Weights

QUERY = "quick fox"
LABELS = ("bad", "so so", "good")
DECODER = BASE | {"max_position_embeddings": 512}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16}
KINDS = {  # label -> (transformers' class, its config's class, tokenizer, settings)
    "bert": ("BertForSequenceClassification", "BertConfig", "wordpiece", {}),
    "roberta": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        "bpe",
        ENCODERS["roberta"].config,
    ),
    "xlm-roberta": (
        "XLMRobertaForSequenceClassification",
        "XLMRobertaConfig",
        "unigram",
        ENCODERS["xlm-roberta"].config,
    ),
    "jina-reranker": (
        "XLMRobertaForSequenceClassification",
        "XLMRobertaConfig",
        "unigram",
        ENCODERS["xlm-roberta"].config,
    ),
    "modern-bert": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        "bpe",
        ENCODERS["modern-bert"].config,
    ),
    "modern-bert mean": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        "bpe",
        ENCODERS["modern-bert"].config | {"classifier_pooling": "mean"},
    ),
    **{
        name.lower(): (f"{name}ForSequenceClassification", f"{name}Config", "bpe", DECODER | more)
        for name, more in (
            ("Llama", {}),
            ("Mistral", {}),
            ("Qwen2", {}),
            ("Qwen3", {"head_dim": 16}),
            ("Gemma", {"head_dim": 16}),
            ("Gemma2", GEMMA),
        )
    },
}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def make_classifier(folder, label, n_labels):
    """Write a tiny classifier; return a function from ids and types to its scores."""
    import torch
    import transformers

    torch.manual_seed(5)
    cls, cls_config, tokenizer, settings = KINDS[label]
    n_vocab = make_tokenizer(folder, tokenizer)
    names = dict(enumerate(LABELS[:n_labels]))
    config = getattr(transformers, cls_config)(
        **SIZES | settings,
        vocab_size=n_vocab,
        id2label=names,
        label2id={v: k for k, v in names.items()},
    )
    config._attn_implementation = "eager"
    model = getattr(transformers, cls)(config).float().eval()
    with torch.no_grad():
        spread(torch, model)
    model.save_pretrained(folder)
    if label == "jina-reranker":
        in_jinas_names(folder)

    def scores(ids, types=None):
        more = {} if types is None else {"token_type_ids": torch.as_tensor(types)[None]}
        with torch.no_grad():
            return model(torch.as_tensor(ids)[None], **more).logits[0].numpy()

    return scores


def in_jinas_names(folder):
    """Give tensors the names, and queries, keys and values the one weight, of jina's own code."""
    tensors = load_file(folder / "model.safetensors")
    own = {
        ".layer.": ".layers.",
        "embeddings.LayerNorm": "emb_ln",
        "attention.output.dense": "mixer.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "output.LayerNorm": "norm2",
    }
    parts = [f"self.{name}" for name in ("query", "key", "value")]
    made = fused(tensors, parts, "mixer.Wqkv", np.concatenate)
    made = renamed(made, {"attention.mixer": "mixer", **own})
    save(folder, {name: x for name, x in made.items() if "position_ids" not in name})
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"use_flash_attn": True, "emb_pooler": None}
    del config["model_type"]
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes a classifier: (HF folder, GGUF path, scores)."""
    done = {}

    def make(label, n_labels=1):
        if (label, n_labels) not in done:
            folder = tmp_path_factory.mktemp(f"{label}-{n_labels}".replace(" ", "-"))
            scores = make_classifier(folder, label, n_labels)
            (path,) = ggq.convert(folder, folder / "model.gguf", type="F32")
            done[label, n_labels] = folder, path, scores
        return done[label, n_labels]

    return make


def close(got, want):
    return np.abs(np.asarray(got) - want).max() <= 1e-3 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("label", KINDS)
def test_scores_are_transformers(label, made):
    folder, path, scores = made(label, 3)
    arch = models.for_hf(json.loads((folder / "config.json").read_text()))
    with ggq.load(path, threads=1, cache_type="f32") as model:
        assert model.hparams.readout.labels == LABELS
        assert model.gguf.metadata[f"{arch.name}.pooling_type"] == 4
        got = model.classify(TEXTS)
        for text, one in zip(TEXTS, got, strict=True):
            assert close(one, scores(model.tokenize(text)))
        with pytest.raises(
            UsageError, match=r"several labels \(bad, so so, good\) gives no single"
        ):
            model.rerank(QUERY, TEXTS)


@pytest.mark.parametrize("label", KINDS)
def test_documents_are_ranked_by_transformers_scores(label, made):
    _, path, scores = made(label)
    with ggq.load(path, threads=1, cache_type="f32") as model:
        found = model.rerank(QUERY, TEXTS)
        assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
        for index, score in found:
            ids, types = model.documents.pair(QUERY, TEXTS[index])
            assert close(score, scores(ids, types)[0])
        assert [r.number for r in model.rerank(QUERY, TEXTS, top_n=2)] == [
            r.number for r in found[:2]
        ]
        alone = [model.rerank(QUERY, [text])[0].score for text in TEXTS]
        assert sorted(alone, reverse=True) == [r.score for r in found]  # neighbours change no bit


@pytest.mark.parametrize("label", ["bert", "roberta", "xlm-roberta"])
def test_pairs_are_those_of_the_tokenizer(label, made):
    folder, path, _ = made(label)
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with ggq.load(path, threads=1) as model:
        ids, types = model.documents.pair(QUERY, TEXTS[0])
        want = tokenizer(QUERY, TEXTS[0])
        assert ids == want["input_ids"]
        if types is not None:
            assert types == want["token_type_ids"]
        cut, _ = model.documents.pair(QUERY, TEXTS[3], 40)
        whole, _ = model.documents.pair(QUERY, TEXTS[3])
        assert len(cut) == 40 < len(whole) and cut[:39] == whole[:39] and cut[-1] == whole[-1]
        with pytest.raises(UsageError, match="the query leaves no room for a document"):
            model.documents.pair(TEXTS[3], "fox", 40)


@pytest.mark.parametrize("label", KINDS)
def test_every_tensor_is_used_once(label, made):
    folder, _, _ = made(label)
    checkpoint = Checkpoint(folder)
    arch = models.for_hf(checkpoint.config)
    hp = arch.hparams(checkpoint.config)
    tensors, skipped = hf_tensors(checkpoint, arch, hp)
    used = [p.name for t in tensors for p in t.parts]
    once = {n for n in used if "mixer.Wqkv." not in n}  # three tensors of one weight
    assert all(used.count(n) == (1 if n in once else 3) for n in used)
    assert set(used) == set(checkpoint.tensors) and not skipped


@pytest.mark.parametrize("label", ["roberta", "xlm-roberta", "modern-bert", "modern-bert mean"])
def test_llama_cpp_scores_alike(label, made):
    """BERT's it would score as if query and document were one part of a text."""
    llama_cpp = pytest.importorskip("llama_cpp")
    _, path, scores = made(label)
    peer = llama_cpp.Llama(
        str(path), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, n_threads=1,
        verbose=False, pooling_type=4,
    )  # fmt: skip
    with ggq.load(path, threads=1, cache_type="f32") as model:
        for text in TEXTS[:3]:
            theirs = np.ravel(peer.embed(text))[0]
            assert theirs == pytest.approx(scores(model.tokenize(text))[0], abs=10 * PEER)


@pytest.mark.parametrize("label", ["bert", "llama", "qwen3"])
def test_exports_are_classifiers_again(label, made, tmp_path):
    import torch
    import transformers

    from ggq.converters.export import export

    _, path, scores = made(label, 3)
    folder = export(path, tmp_path / "hf", "f32")
    cls = transformers.AutoModelForSequenceClassification
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.id2label == dict(enumerate(LABELS))
    ids = [5, 6, 7, 8]
    with torch.no_grad():
        assert close(model(torch.as_tensor(ids)[None]).logits[0].numpy(), scores(ids))


def test_models_that_do_not_rank_say_so(made, tmp_path):
    import transformers

    _, path, _ = made("llama")
    with ggq.load(path, threads=1) as model:
        with pytest.raises(UsageError, match="this llama file has no output head: it embeds or"):
            list(model.generate("fox"))
        with pytest.raises(UsageError, match="pooling cls: a decoder's first token sees no other"):
            model.embed("fox", pooling="cls")
    config = transformers.LlamaConfig(**SIZES, vocab_size=make_bpe(tmp_path))
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    (plain,) = ggq.convert(tmp_path, tmp_path / "x.gguf", type="F32")
    with ggq.load(plain, threads=1) as model:
        with pytest.raises(UsageError, match="this llama file is no reranker: it embeds texts"):
            model.rerank(QUERY, TEXTS)
        with pytest.raises(UsageError, match="pooling rank: this llama file has no classifier"):
            model.embed("fox", pooling="rank")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label is .*no numbering"),
        ({"id2label": {"x": "a"}}, "id2label is .*no numbering"),
        ({"id2label": None, "num_labels": 0}, "num_labels is 0"),
        (
            {"id2label": {"0": "a", "1": "b"}},
            r"has shape \(1, 64\), cls.output.weight needs \(2, 64",
        ),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max': cls or mean"),
    ],
)
def test_wrong_labels_are_told(settings, line, made):
    checkpoint = Checkpoint(made("modern-bert")[0])
    checkpoint.config |= settings
    arch = models.for_hf(checkpoint.config)
    with pytest.raises(ModelError, match=line):
        hf_tensors(checkpoint, arch, arch.hparams(checkpoint.config))


def test_a_file_of_several_scores_without_labels_is_refused(made, tmp_path):
    from ggq.gguf import open_gguf

    with open_gguf(made("bert", 3)[1]) as file:
        metadata = {k: v for k, v in file.metadata.items() if not k.endswith("output_labels")}
        source = SimpleNamespace(metadata=metadata, tensors=file.tensors)
        with pytest.raises(ModelError, match=r"3 labels without the key bert\.classifier\.output"):
            models.get("bert").hparams(source)


# -- decoders that answer with yes or no


def make_reranker(folder, tied):
    """Write a tiny Qwen3-Reranker; return its transformers model."""
    import torch
    import transformers

    torch.manual_seed(9)
    n_vocab = make_bpe(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    first = next(t for t in vocab if len(t) > 3 and t not in ("<unk>",))
    second = next(t for t in vocab if len(t) > 3 and t != first)
    data["model"]["merges"] = [
        m for m in data["model"]["merges"] if "".join(m) not in (first, second)
    ]
    vocab["yes"], vocab["no"] = vocab.pop(first), vocab.pop(second)
    data["model"]["merges"] = []
    path.write_text(json.dumps(data))
    (folder / "README.md").write_text("# Qwen3-Reranker-tiny\n")
    settings = BASE | {"head_dim": 16, "tie_word_embeddings": tied, "vocab_size": n_vocab}
    config = transformers.Qwen3Config(**settings | {"max_position_embeddings": 2048})
    config._attn_implementation = "eager"
    model = transformers.Qwen3ForCausalLM(config).float().eval()
    with torch.no_grad():
        spread(torch, model)
    model.save_pretrained(folder)
    return model, [vocab["yes"], vocab["no"]]


@pytest.mark.parametrize("tied", [True, False])
def test_yes_and_no_are_compared(tied, tmp_path):
    import torch

    reranker, answers = make_reranker(tmp_path, tied)
    (path,) = ggq.convert(tmp_path, tmp_path / "x.gguf", type="F32")
    with ggq.load(path, threads=1, cache_type="f32", n_ctx=2048) as model:
        assert model.hparams.readout.labels == ("yes", "no")
        assert "output.weight" not in model.gguf.tensors
        hidden = ReferenceOps(Weights(model.gguf))
        assert hidden.has("cls.output.weight")
        for index, score in model.rerank("fox", ["quick", "<|im_end|>lazy", "fox fox"]):
            ids, types = model.documents.pair("fox", ["quick", "<|im_end|>lazy", "fox fox"][index])
            assert types is None
            # a document's text is no mark of the conversation
            assert ids.count(model.tokenizer.ids["<|im_end|>"]) == 2
            with torch.no_grad():
                logits = reranker(torch.as_tensor(ids)[None]).logits[0, -1, answers].numpy()
            assert score == pytest.approx(1 / (1 + math.exp(logits[1] - logits[0])), abs=1e-3)
