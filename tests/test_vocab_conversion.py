"""Tokenizers from Hugging Face folders to GGUF keys and back, held to llama.cpp's converter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import vocabmaker
from tokenizers import AddedToken, Regex, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from ggq.converters.vocab.compare import TEXT, first_difference
from ggq.converters.vocab.pre_tokenizer import canonical, recognize
from ggq.converters.vocab.read import read_vocab
from ggq.converters.vocab.write import write_vocab
from ggq.errors import FormatError, GGQError, ModelError, UsageError
from ggq.gguf import open_gguf, spec
from ggq.runtime.tokenizers import tokenizer_from_gguf
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS, QWEN2

BYTE_LEVEL = sorted(name for name, pre in PRE_TOKENIZERS.items() if pre.byte_level)
EXTRA = (
    AddedToken("<tool>", special=False, normalized=False),
    AddedToken("<|x|>", special=False, normalized=False),
    AddedToken("<ctl>", special=True, normalized=False),
)


def keys(folder: Path, arch: str = "llama", **options) -> dict:
    """Return the converted keys without their common prefix; there must be no warning."""
    n_vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    vocab = read_vocab(folder, n_vocab, arch, **options)
    assert vocab.warnings == []
    return {item.key.removeprefix("tokenizer.ggml."): item.value for item in vocab}


def full(found: dict) -> dict:
    """Return keys as they stand in a file."""
    return {k if k.startswith("tokenizer.") else f"tokenizer.ggml.{k}": v for k, v in found.items()}


@pytest.fixture(scope="module")
def llama3(tmp_path_factory) -> Path:
    """Return the folder of a tokenizer in the manner of Llama 3, with added tokens."""
    return vocabmaker.bpe_folder(
        tmp_path_factory.mktemp("llama3"),
        vocabmaker.split_of("llama-bpe"),
        ignore_merges=True,
        bos="<|endoftext|>",
        extra=EXTRA,
    )


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory) -> Path:
    """Return the folder of a tokenizer in the manner of Qwen 2: NFC, single digits."""
    split = vocabmaker.split_of("qwen2")
    return vocabmaker.bpe_folder(tmp_path_factory.mktemp("qwen2"), split, nfc=True)


@pytest.fixture(scope="module")
def smollm(tmp_path_factory) -> Path:
    """Return the folder of a tokenizer in the manner of SmolLM: digits, then GPT-2's pattern."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    split = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    templates = [{"name": "default", "template": "a"}, {"name": "tool use", "template": "b"}]
    config = {"add_prefix_space": False, "chat_template": templates}
    return vocabmaker.bpe_folder(tmp_path_factory.mktemp("smollm"), split, config=config)


@pytest.fixture(scope="module")
def spm(tmp_path_factory) -> Path:
    """Return the folder of a SentencePiece model with added tokens and padding."""
    return vocabmaker.spm_folder(tmp_path_factory.mktemp("spm"))


@pytest.fixture(scope="module")
def fast_spm(tmp_path_factory) -> Path:
    """Return the folder of an SPM-like tokenizer.json without tokenizer.model."""
    return vocabmaker.fast_spm_folder(tmp_path_factory.mktemp("fast"))


@pytest.fixture(params=["llama3", "qwen2", "smollm", "spm", "fast_spm"])
def folder(request) -> Path:
    """Return each of the folders in turn."""
    return request.getfixturevalue(request.param)


# -- keys


def test_llama3_keys(llama3):
    found = keys(llama3)
    assert (found["model"], found["pre"]) == ("gpt2", "llama-bpe")
    types = dict(zip(found["tokens"], found["token_type"], strict=True))
    assert [types[t] for t in ("<|im_end|>", "<ctl>", "<|x|>", "<tool>")] == [3, 3, 3, 4]
    assert found["tokens"][-1] == f"[PAD{len(found['tokens']) - 1}]" and types["[PAD705]"] == 5
    assert (found["bos_token_id"], found["eos_token_id"], found["padding_token_id"]) == (0, 2, 0)
    assert found["add_bos_token"] is True
    assert found["tokenizer.chat_template"] == vocabmaker.TEMPLATE
    assert all(" " in merge for merge in found["merges"])


def test_qwen2_keys(qwen2):
    found = keys(qwen2, "qwen2")
    assert (found["pre"], found["normalizer.nfc"]) == ("qwen2", True)
    assert found["add_bos_token"] is False
    tokenizer = tokenizer_from_gguf(full(found))
    assert tokenizer.encode("e\u0301") == tokenizer.encode("é")


def test_smollm_keys_and_named_templates(smollm):
    found = keys(smollm)
    assert found["pre"] == "smollm" and found["add_space_prefix"] is False
    assert found["tokenizer.chat_template"] == "a"
    assert found["tokenizer.chat_template.tool_use"] == "b"
    assert found["tokenizer.chat_templates"] == ["tool_use"]


def test_spm_keys(spm):
    found = keys(spm)
    assert (found["model"], found["pre"]) == ("llama", "default")
    assert found["tokens"][600:603] == ["<|end|>", "<tool>", "[PAD602]"]
    assert found["token_type"][:4] == [2, 3, 3, 6] and found["token_type"][600:603] == [3, 4, 5]
    assert found["scores"][600:603] == [-1000.0, -1000.0, -10000.0]
    assert "add_space_prefix" not in found and found["add_bos_token"] is True


def test_spm_without_dummy_prefix(tmp_path):
    found = keys(vocabmaker.spm_folder(tmp_path, add_dummy_prefix=False), "gemma2")
    assert found["add_space_prefix"] is False


@pytest.mark.parametrize("prepend", [True, False])
def test_spm_from_tokenizer_json_alone(tmp_path, prepend):
    found = keys(vocabmaker.fast_spm_folder(tmp_path, prepend=prepend))
    assert found["model"] == "llama" and found.get("add_space_prefix", True) is prepend
    assert found["token_type"][:4] == [3, 3, 3, 6]


def test_templates_from_files(tmp_path, qwen2):
    for path in qwen2.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["chat_template"]
    vocabmaker.write_json(tmp_path, "tokenizer_config.json", config)
    (tmp_path / "chat_template.jinja").write_text("from a file")
    assert keys(tmp_path)["tokenizer.chat_template"] == "from a file"


def test_more_ends_of_generation(tmp_path, qwen2):
    for path in qwen2.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    vocabmaker.write_json(tmp_path, "generation_config.json", {"eos_token_id": [2, 1, 0]})
    found = keys(tmp_path)
    assert found["eos_token_id"] == 2 and "eom_token_id" not in found  # <|endoftext|> by name
    assert tokenizer_from_gguf(full(found)).eog_ids == {0, 1, 2}


def test_merges_as_pairs_and_as_strings_are_the_same(tmp_path, qwen2):
    data = json.loads((qwen2 / "tokenizer.json").read_text())
    for path in qwen2.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    merges = data["model"]["merges"]
    data["model"]["merges"] = [" ".join(m) if isinstance(m, list) else m.split() for m in merges]
    vocabmaker.write_json(tmp_path, "tokenizer.json", data)
    assert keys(tmp_path)["merges"] == keys(qwen2)["merges"]


# -- the same ids


def test_the_converted_tokenizer_encodes_as_the_folders_own(folder):
    tokenizer = tokenizer_from_gguf(full(keys(folder)))
    if (folder / "tokenizer.json").exists():
        backend = HFTokenizer.from_file(str(folder / "tokenizer.json"))
        text = TEXT + "<tool>a<tool>"
        assert tokenizer.encode(text, parse_special=True) == backend.encode(text).ids or (
            tokenizer.add_bos and "fast" in str(folder)  # its BOS is only in the config
        )
    assert TEXT.endswith(tokenizer.decode(tokenizer.encode("|\n"), skip_special=True))


def test_shared_models(shared_dir):
    for name, pre in (("minimind2", "gpt-2"), ("stories15M", "default")):
        path = shared_dir / "models" / name
        if not path.exists():
            pytest.skip(f"{path} is absent")
        assert keys(path)["pre"] == pre


def test_a_difference_is_a_warning(tmp_path, qwen2):
    for path in qwen2.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    vocab = read_vocab(tmp_path, 705, "llama", pre="llama-bpe")
    [warning] = vocab.warnings
    assert "differs" in warning and "instead of" in warning and "\n" not in warning


def test_first_difference_names_line_and_tokens(qwen2):
    metadata = full(keys(qwen2))
    tokenizer = tokenizer_from_gguf(metadata)
    assert first_difference(metadata, lambda t: tokenizer.encode(t)) is None
    said = first_difference(metadata, lambda t: [*tokenizer.encode(t)[:-1], 0], "abc\ndef\n")
    assert said is not None and "'abc\\n'" in said and "0 '<|endoftext|>'" in said


# -- pre-tokenizers by structure


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_every_id_is_recognised_as_one_that_splits_alike(pre):
    entry = PRE_TOKENIZERS[pre]
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in entry.patterns
    ]
    steps = [*splits, {"type": "ByteLevel", "use_regex": False}]
    data = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        # "ab" is reached by no merge: whether words are merged at all makes a difference
        "model": {
            **{"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": []},
            "ignore_merges": entry.ignore_merges,
        },
    }
    found = recognize(data)
    assert found.warnings == () and not found.nfc
    same = PRE_TOKENIZERS[found.id]
    assert tuple(map(canonical, same.patterns)) == tuple(map(canonical, entry.patterns))
    assert same.ignore_merges == entry.ignore_merges


def test_spelling_does_not_matter():
    removed = {
        "type": "Split", "behavior": "Removed", "invert": True,
        "pattern": {"Regex": QWEN2.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)",
                    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])")},
    }  # fmt: skip
    assert recognize({"pre_tokenizer": removed}).id == "qwen2"
    assert recognize({"pre_tokenizer": {"type": "ByteLevel"}}).id == "gpt-2"
    assert recognize({"pre_tokenizer": {"type": "ByteLevel"}}, "mpt").id == "mpt"


def test_an_unknown_pattern_is_shown_with_the_nearest_id(tmp_path):
    regex = QWEN2.replace(r"\p{N}|", r"\p{N}{1,7}|")
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    path = vocabmaker.bpe_folder(tmp_path, split)
    with pytest.raises(ModelError, match=r"\{1,7\}.*nearest known is '(qwen2|llama-bpe)'") as info:
        read_vocab(path, 705, "llama")
    assert "\n" not in str(info.value)
    assert {i.key: i.value for i in read_vocab(path, 705, "llama", pre="qwen2")}[
        "tokenizer.ggml.pre"
    ] == "qwen2"
    with pytest.raises(UsageError, match="pre nonsense: one of default"):
        read_vocab(path, 705, "llama", pre="nonsense")


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Metaspace"}},
        {"pre_tokenizer": {"type": "Split", "behavior": "MergedWithNext", "pattern": {}}},
    ],
)
def test_steps_without_a_gguf_form_are_named(part):
    with pytest.raises(ModelError, match=r"tokenizer\.json: "):
        recognize({"pre_tokenizer": {"type": "ByteLevel"}, **part})


# -- broken folders


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "{}", '{"model": 5}', '{"model": {"type": "BPE", "vocab": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": "b"}}}',
        '{"model": {"type": "BPE", "vocab": {"a": -1}}}',
        '{"model": {"type": "BPE", "vocab": {"a": 1e9}}}',
        '{"model": {"type": "BPE", "vocab": {"a": 99999999999}}}',
        '{"model": {"type": "Unigram", "vocab": [["a", 0]]}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [5]}, '
        '"pre_tokenizer": {"type": "ByteLevel"}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": "x"}]}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": 7}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}}, "pre_tokenizer": 7}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}}, "pre_tokenizer": {"type": "ByteLevel"}, '
        '"post_processor": {"processors": 3}}',
    ],
)  # fmt: skip
def test_broken_tokenizer_json_is_one_clear_line(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(GGQError) as info:
        read_vocab(tmp_path, 10, "llama")
    assert ("\n" not in str(info.value) and str(tmp_path) in str(info.value)) or "json" in str(info)


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(FormatError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        read_vocab(tmp_path, 10, "llama")
    (tmp_path / "tokenizer.model").write_bytes(b"no protobuf")
    with pytest.raises(FormatError, match=r"tokenizer\.model"):
        read_vocab(tmp_path, 10, "llama")


def test_tokens_without_an_embedding_row_are_left_out(qwen2):
    vocab = read_vocab(qwen2, 690, "qwen2")
    assert {i.key: i.value for i in vocab}["tokenizer.ggml.tokens"][-1]
    assert any("no row in the embedding" in w for w in vocab.warnings)


# -- back to a folder


def test_export_is_the_inverse(tmp_path, folder):
    before = keys(folder)
    assert write_vocab(full(before), tmp_path) == []
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    after = keys(tmp_path)
    for key in ("model", "pre", "tokens", "merges", "bos_token_id", "eos_token_id",
                "padding_token_id", "add_bos_token", "tokenizer.chat_template",
                "tokenizer.chat_template.tool_use", "normalizer.nfc"):  # fmt: skip
        assert after.get(key) == before.get(key), key
    types = zip(before["token_type"], after["token_type"], strict=True)
    assert all(a == b or (a, b) == (2, 3) for a, b in types)  # <unk> becomes a control
    a, b = tokenizer_from_gguf(full(before)), tokenizer_from_gguf(full(after))
    assert a.encode(TEXT) == b.encode(TEXT)


def test_exported_folder_loads_in_transformers(tmp_path, folder):
    transformers = pytest.importorskip("transformers")
    metadata = full(keys(folder))
    write_vocab(metadata, tmp_path)
    tokenizer = tokenizer_from_gguf(metadata)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert hf.encode(TEXT) == tokenizer.encode(TEXT)
    assert hf.eos_token_id == tokenizer.eos_id
    template = metadata.get("tokenizer.chat_template")
    assert template is None or "chat_template" in (tmp_path / "tokenizer_config.json").read_text()


def test_exported_sentencepiece_model_encodes_alike(tmp_path, spm):
    sentencepiece = pytest.importorskip("sentencepiece")
    metadata = full(keys(spm))
    write_vocab(metadata, tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    original = sentencepiece.SentencePieceProcessor(model_file=str(spm / "tokenizer.model"))
    assert model.encode(TEXT) == original.encode(TEXT)


@pytest.mark.parametrize("name", ["llama-spm", "bert-bge", "starcoder"])
def test_export_of_real_vocabularies(shared_dir, tmp_path, name):
    transformers = pytest.importorskip("transformers")
    path = shared_dir / "vocab" / f"ggml-vocab-{name}.gguf"
    with open_gguf(path) as file:
        assert write_vocab(file, tmp_path) == []
        tokenizer = tokenizer_from_gguf(file)
    hf = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert hf.encode(TEXT) == tokenizer.encode(TEXT)


def test_value_types(llama3):
    types = {i.key.split(".")[-1]: i.type for i in read_vocab(llama3, 710, "llama")}
    assert types["tokens"] == types["merges"] == types["chat_template"] == spec.STR
    assert types["token_type"] == spec.I32 and types["bos_token_id"] == spec.U32
    assert types["add_bos_token"] == spec.BOOL
