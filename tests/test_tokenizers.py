"""Tokenizers from GGUF metadata: llama.cpp's vectors, plain twins, special tokens, hostile keys."""

from __future__ import annotations

import io
import itertools
import unicodedata

import ggufmaker
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabmaker import bpe, metadata, spm

from ggq.converters.vocab.compare import TEXT
from ggq.errors import FormatError, ModelError, UsageError
from ggq.gguf import open_gguf
from ggq.runtime.tokenizers import tokenizer_from_gguf
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from ggq.runtime.tokenizers.sentencepiece_model import fields

SEPARATOR = "\n__ggml_vocab_test__\n"
VOCABS = (
    "bert-bge", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3",
    "qwen2", "starcoder",
)  # fmt: skip
BYTE_LEVEL = sorted(name for name, pre in PRE_TOKENIZERS.items() if pre.byte_level)


# -- llama.cpp's vectors


@pytest.mark.parametrize("name", VOCABS)
def test_vectors_of_llama_cpp(shared_dir, name):
    path = shared_dir / "vocab" / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with open_gguf(path) as file:
        tokenizer = tokenizer_from_gguf(file)
    texts = path.with_name(path.name + ".inp").read_bytes().decode().split(SEPARATOR)
    lines = path.with_name(path.name + ".out").read_text().split("\n")
    assert len(texts) > 40 and len(lines) - len(texts) in (0, 1)  # with a last newline or without
    for text, line in zip(texts, lines[: len(texts)], strict=True):
        ids = [int(word) for word in line.split()]
        assert tokenizer.encode(text, add_special=False) == ids, text
        if name != "bert-bge":  # WordPiece forgets spaces and case
            assert tokenizer.decode(ids) == text
            stream = tokenizer.stream()
            pieces = [stream.push(i) for i in ids]
            whole = "".join(pieces) + stream.flush()
            assert whole.removeprefix(" " if tokenizer.add_space_prefix else "") == text


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "llama-spm", "gemma-4", "bert-bge"])
def test_long_texts_equal_llama_cpp(shared_dir, name):
    llama_cpp = pytest.importorskip("llama_cpp")
    path = shared_dir / "vocab" / f"ggml-vocab-{name}.gguf"
    text = (shared_dir / "text" / "calibration-multilingual.txt").read_text("utf-8")[:20000]
    if name == "bert-bge":  # llama.cpp takes Hangul apart only halfway (one code point of NFD)
        text = "".join(c for c in text if "HANGUL" not in unicodedata.name(c, ""))
    oracle = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    with open_gguf(path) as file:
        tokenizer = tokenizer_from_gguf(file)
    assert tokenizer.encode(text) == oracle.tokenize(text.encode())


@pytest.mark.parametrize("name", ["falcon", "gpt-2", "llama-bpe", "qwen2", "starcoder"])
def test_short_texts_are_merged_as_long_ones(shared_dir, name):
    path = shared_dir / "vocab" / f"ggml-vocab-{name}.gguf"
    whole = (shared_dir / "text" / "calibration-multilingual.txt").read_text("utf-8")
    texts = [whole[i : i + 90] for i in range(0, len(whole), len(whole) // 150)]
    texts += ["", " ", "a" * 300, "ab" * 150, "\n\n\n\t  x", "naïve café — 12345678 ²³"]
    with open_gguf(path) as file:
        tokenizer = tokenizer_from_gguf(file)
    assert tokenizer._merging
    short = [tokenizer.encode(text) for text in texts]
    tokenizer.encode("long " * 200)
    assert tokenizer._merging is None
    assert [tokenizer.encode(text) for text in texts] == short


# -- byte-level BPE


@settings(max_examples=60, deadline=None)
@given(st.text(), st.sampled_from(BYTE_LEVEL))
def test_byte_level_decoding_is_the_inverse(text, pre):
    tokenizer = bpe(pre)
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids) == text
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == text


def test_merges_go_by_rank():
    tokenizer = bpe()
    words = [tokenizer.tokens[i] for i in tokenizer.encode("then all in", add_special=False)]
    assert words == ["the", "n", "Ġa", "ll", "Ġ", "in"]


def test_a_merge_to_no_token_is_left_out():
    merges = [*metadata(ggufmaker.bpe_vocab())["tokenizer.ggml.merges"], "x y", "q z"]
    tokenizer = bpe(merges=merges)
    assert [tokenizer.tokens[i] for i in tokenizer.encode("xythe")] == ["x", "y", "the"]


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "I'll pay 12345  now", ["I", "'ll", " pay", " 12345", " ", " now"]),
        ("llama-bpe", "I'LL pay 12345  now", ["I", "'LL", " pay", " ", "123", "45", " ", " now"]),
        ("qwen2", "x=12\n\n y", ["x", "=", "1", "2", "\n\n", " y"]),
        ("qwen35", "e\u0301a 1", ["e\u0301a", " ", "1"]),
        ("smollm", "a 12", ["a", " ", "1", "2"]),
        ("gpt-4o", "HelloWorld's 1234", ["Hello", "World's", " ", "123", "4"]),
        ("tekken", "camelCase", ["camel", "Case"]),
        ("afmoe", "1234567", ["1", "234", "567"]),
        ("superbpe", "1234567", ["1", "234", "567"]),
        ("kimi-k2", "我ok", ["我", "ok"]),
        ("deepseek-v3", "1234 ok!a", ["123", "4", " ok", "!a"]),
    ],
)
def test_pre_tokenizers_cut_words(pre, text, words):
    backend = bpe(pre)._backend.pre_tokenizer
    pieces = backend.pre_tokenize_str(text)
    table = ggufmaker.byte_letters()
    found = [bytes(table.index(c) for c in piece).decode() for piece, _ in pieces]
    assert found == words


def test_every_pattern_compiles_and_unknown_ids_are_named():
    for pre in BYTE_LEVEL:
        assert bpe(pre).encode("Hello 世界 1234", add_special=False)
    with pytest.raises(ModelError, match=r"tokenizer\.ggml\.pre.*'nonsense'"):
        bpe("nonsense")


# -- SentencePiece against a plain twin


def merge_best(text: str, scores: dict[str, float]) -> list[str]:
    """Return the pieces of ``text``: always merge the pair of highest score, leftmost first."""
    parts = list(text)
    while True:
        found = [
            (-scores[a + b], i)
            for i, (a, b) in enumerate(itertools.pairwise(parts))
            if a + b in scores
        ]
        if not found:
            return parts
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("seed", range(4))
def test_spm_equals_the_plain_twin(seed):
    rng = np.random.default_rng(seed)
    letters = ["a", "b", "c", "▁", "é", "世"]
    pieces = dict.fromkeys(letters[:5], -50.0)
    for _ in range(80):
        word = "".join(rng.choice(letters[:5], rng.integers(2, 5)))
        pieces[word] = float(rng.choice([-1.0, -2.0, -3.5, -7.25]))  # ties on purpose
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    types = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    scores = [0.0] * 259 + list(pieces.values())
    padded = [*tokens, "", "a", "[PAD]", "[PAD]", ""]  # empty and repeated ones
    tokenizer = spm(
        tokens=padded,
        token_type=[*types, 1, 1, 5, 5, 5],
        scores=[*scores, -1.0, 9.0, -9.0, -9.0, -9.0],
        add_space_prefix=False,
        add_bos_token=False,
    )
    for _ in range(50):
        text = "".join(rng.choice([*letters[:3], " ", "é", "世"], rng.integers(1, 30)))
        expected = []
        for piece in merge_best(text.replace(" ", "▁"), pieces):
            known = [tokens.index(piece)] if piece in tokens else []
            expected += known or [tokens.index(f"<0x{b:02X}>") for b in piece.encode()]
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected) == text


def test_spm_space_prefix_follows_starts_and_special_tokens():
    tokenizer = spm()
    assert tokenizer.encode("the") == [1, tokenizer.ids["▁the"]]
    ids = tokenizer.encode("the</s>the", parse_special=True)
    assert ids == [1, tokenizer.ids["▁the"], 2, tokenizer.ids["▁the"]]
    assert spm(add_space_prefix=False).encode("the") == [1, tokenizer.ids["the"]]
    assert tokenizer.decode(tokenizer.encode("the cat"), skip_special=True) == "the cat"
    assert tokenizer.encode("") == [1]


def test_spm_flags():
    assert spm(add_bos_token=False, add_eos_token=True).encode("the")[-1] == 2
    squeezed = spm(remove_extra_whitespaces=True)
    assert squeezed.encode("  the   cat ") == squeezed.encode("the cat")
    assert spm(add_bos_token=None).add_bos  # the family's default


def test_spm_without_bytes_or_unknown_token():
    tokens = ["<s>", "</s>", "▁", "a", "b", "ab"]
    tokenizer = spm(
        tokens=tokens, token_type=[3, 3, 1, 1, 1, 1], scores=[0.0, 0, -5, -4, -3, -1],
        bos_token_id=0, eos_token_id=1, unknown_token_id=None,
    )  # fmt: skip
    assert tokenizer.encode("ab", add_special=False) == [2, 5]
    assert all(0 <= i < 6 for i in tokenizer.encode("aZb世"))


# -- decoding


def test_streaming_holds_back_half_characters():
    tokenizer = bpe()
    ids = tokenizer.encode("é🚀")
    stream = tokenizer.stream()
    assert [stream.push(i) for i in ids] == ["", "é", "", "", "", "🚀"]
    assert stream.push(ids[0]) == "" and stream.flush() == "\ufffd" and stream.flush() == ""
    shown = tokenizer.stream(skip_special=False)
    assert shown.push(2) == "<|im_end|>" and tokenizer.stream().push(2) == ""


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "\ud83d\ude80", "\x00\uffff\U0010ffff"])
@pytest.mark.parametrize("family", ["spm", "bpe"])
def test_any_text_is_encoded(family, text):
    tokenizer = spm() if family == "spm" else bpe()
    wanted = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == wanted


@pytest.mark.parametrize("bad", [-1, 10**9])
def test_ids_outside_the_vocabulary_are_a_usage_error(bad):
    for call in (
        lambda t: t.decode([bad]),
        lambda t: t.is_control(bad),
        lambda t: t.stream().push(bad),
    ):
        with pytest.raises(UsageError, match=str(bad)):
            call(bpe())


# -- WordPiece


def wordpiece(**changes):
    """Return a toy WordPiece tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁hel", "lo", "▁world", "▁!", "▁caf", "e", "▁世"]
    keys = {"model": "bert", "tokens": words, "token_type": [3, 3, 3, 3] + [1] * 7,
            "unknown_token_id": 1, "cls_token_id": 2, "bos_token_id": 2,
            "seperator_token_id": 3}  # fmt: skip
    return tokenizer_from_gguf(metadata({}, **{**keys, **changes}))


def test_wordpiece():
    tokenizer = wordpiece()
    assert tokenizer.encode("Hello, WORLD! Café 世") == [2, 4, 5, 1, 6, 7, 8, 9, 10, 3]
    assert tokenizer.encode("hellox", add_special=False) == [1]
    assert tokenizer.encode("hello\u200b\x07", add_special=False) == [4, 5]
    cased = wordpiece(**{"normalizer.lowercase": False})
    assert cased.encode("Hello", add_special=False) == [1]
    assert tokenizer.encode("x" * 100_000, add_special=False) == [1]


# -- SentencePiece unigram


def test_unigram_equals_sentencepiece():
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=model, model_type="unigram",
        vocab_size=400, character_coverage=0.99, minloglevel=2, num_threads=1,
        hard_vocab_limit=False,
    )  # fmt: skip
    original = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(original.vocab_size())
    normalizer = dict(fields(dict(fields(model.getvalue()))[3]))
    kind = [2 if original.IsUnknown(i) else 3 if original.IsControl(i) else 1 for i in ids]
    keys = {
        "model": "t5", "tokens": [original.IdToPiece(i) for i in ids], "token_type": kind,
        "scores": [original.GetScore(i) for i in ids], "unknown_token_id": original.unk_id(),
        "eos_token_id": original.eos_id(), "add_space_prefix": True,
        "remove_extra_whitespaces": True,
        "precompiled_charsmap": np.frombuffer(normalizer[2], np.uint8),
    }  # fmt: skip
    tokenizer = tokenizer_from_gguf(metadata({}, **keys))
    for line in [*TEXT.splitlines(), "ﬁve  ½  Ａ", ""]:
        assert tokenizer.encode(line) == [*original.encode(line), original.eos_id()], line
    with pytest.raises(FormatError, match="precompiled_charsmap"):
        tokenizer_from_gguf(metadata({}, **{**keys, "precompiled_charsmap": np.arange(5)}))
    rng = np.random.default_rng(0)
    for _ in range(20):  # no broken table reaches SentencePiece, which would walk out of it
        broken = keys["precompiled_charsmap"].copy()
        broken[4 + 4 * rng.integers(0, 200) + 2] ^= 0xFF
        try:
            tokenizer_from_gguf(metadata({}, **{**keys, "precompiled_charsmap": broken})).encode(
                TEXT
            )
        except FormatError as error:
            assert "precompiled_charsmap" in str(error)
