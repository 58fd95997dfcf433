"""Tokenizers without tokenizer.json: vocab.json with merges.txt, vocab.txt; as transformers."""

import json

import pytest
from hfmaker import make_bpe

from ggq.converters.vocab.read import read_vocab
from ggq.errors import FormatError, GGQError
from ggq.runtime.tokenizers import tokenizer_from_gguf

TEXTS = ("The quick brown fox, it's 42!", " two  spaces\nund größer", "naive café e\u0301")
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "##er", "fox", ","]
BERT_WORDS += list("abcdefghijklmnopqrstuvwxyz") + [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]


def loose(folder, special, **config):
    """Write vocab.json and merges.txt with ``special`` tokens at the end; return the folder."""
    make_bpe(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    vocab = model["vocab"]
    for text in special:
        vocab.setdefault(text, len(vocab))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def ours(folder, arch="qwen2"):
    found = read_vocab(folder, arch=arch)
    assert not found.warnings
    return tokenizer_from_gguf({item.key: item.value for item in found})


@pytest.mark.parametrize(
    ("name", "special"),
    [
        ("GPT2Tokenizer", ["<|endoftext|>"]),
        ("Qwen2Tokenizer", ["<|endoftext|>"]),
        ("RobertaTokenizer", ["<s>", "</s>", "<unk>", "<pad>", "<mask>"]),
    ],
)
def test_vocab_and_merges_split_as_transformers_does(tmp_path, name, special):
    transformers = pytest.importorskip("transformers")
    folder = loose(tmp_path, special, tokenizer_class=name)
    theirs = getattr(transformers, name).from_pretrained(folder)
    tokenizer = ours(folder)
    for text in TEXTS:
        assert tokenizer.encode(text) == theirs(text)["input_ids"], text


def test_the_class_is_told_by_the_model(tmp_path):
    folder = loose(tmp_path, ["<|endoftext|>"])
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"]}))
    plain = {item.key: item.value for item in read_vocab(folder, arch="qwen2")}
    assert plain["tokenizer.ggml.pre"] == "qwen2"
    end = plain["tokenizer.ggml.tokens"].index("<|endoftext|>")
    assert plain["tokenizer.ggml.eos_token_id"] == end
    assert plain["tokenizer.ggml.token_type"][end] == 3


def test_an_unknown_class_asks_for_its_pre_tokenizer(tmp_path):
    folder = loose(tmp_path, [], tokenizer_class="OwnTokenizer")
    with pytest.raises(GGQError, match=r"unknown pre-tokenizer .* name one with"):
        read_vocab(folder, arch="llama")
    plain = {item.key: item.value for item in read_vocab(folder, arch="llama", pre="smollm")}
    assert plain["tokenizer.ggml.pre"] == "smollm"


@pytest.mark.parametrize("lower", [True, False])
def test_word_pieces_split_as_transformers_does(tmp_path, lower):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path, do_lower_case=lower)
    tokenizer = ours(tmp_path, "bert")
    for text in ("The quicker fox, a zoo", "quick Fox", "unheard of"):
        assert tokenizer.encode(text) == theirs(text)["input_ids"], text


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("merges.txt", b"#version: 0.2\na b c\n", "merge 0 is not a pair"),
        ("merges.txt", b"\xff\xfe\n", "cannot be read"),
        ("vocab.json", b"[1]", "is not a JSON object"),
        ("vocab.json", b'{"a": "b"}', "a token id is not a small number"),
    ],
)
def test_malformed_files_are_named(tmp_path, file, text, words):
    folder = loose(tmp_path, ["<|endoftext|>"], tokenizer_class="GPT2Tokenizer")
    (folder / file).write_bytes(text)
    with pytest.raises(FormatError, match=words):
        read_vocab(folder, arch="gpt2")


def test_word_pieces_that_are_there_twice(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\nthe\nthe\n")
    with pytest.raises(FormatError, match="is there twice"):
        read_vocab(tmp_path, arch="bert")
