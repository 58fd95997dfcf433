"""What the files of a folder say beside its tokenizer: chat templates, ends of generation, the
pre-tokenizer's id, the ends of a BERT text; transformers gives the second opinion."""

import json
import os
import shutil

import pytest
import vocabmaker
from test_vocab_conversion import full

from ggq.converters.vocab.flags import lost_flags
from ggq.converters.vocab.pre_tokenizer import recognize
from ggq.converters.vocab.read import read_vocab
from ggq.converters.vocab.tokenizer_files import TokenizerFiles
from ggq.errors import FormatError, ModelError
from ggq.runtime.tokenizers import tokenizer_from_gguf
from ggq.runtime.tokenizers.pre_tokenizers import PRE_TOKENIZERS

LIST = [{"name": "default", "template": "LIST"}, {"name": "rag", "template": "RAG"}]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder without any chat template."""
    split = vocabmaker.split_of("qwen2")
    folder = vocabmaker.bpe_folder(tmp_path_factory.mktemp("plain") / "hf", split)
    edit(folder, "tokenizer_config.json", chat_template=...)
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "hf")


def keys(folder, arch="llama"):
    """Return the converted keys without their common prefix."""
    n_vocab = json.loads((folder / "config.json").read_text()).get("vocab_size")
    vocab = read_vocab(folder, n_vocab, arch)
    return {item.key.removeprefix("tokenizer.ggml."): item.value for item in vocab}


def edit(folder, file, **changes):
    """Set keys of a JSON file; ``...`` removes one."""
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    found = {k: v for k, v in {**found, **changes}.items() if v is not ...}
    path.write_text(json.dumps(found))


def templates(folder):
    """Return name -> text of what is written, "default" for the unnamed one."""
    found = {k: v for k, v in keys(folder).items() if k.startswith("tokenizer.chat_template")}
    found.pop("tokenizer.chat_templates", None)
    return {k.removeprefix("tokenizer.chat_template").lstrip(".") or "default": v
            for k, v in found.items()}  # fmt: skip


@pytest.mark.parametrize("old", [..., None, "", "OLD", LIST])
@pytest.mark.parametrize("more", [(), ("tool_use",), ("tool_use", "rag")])
@pytest.mark.parametrize("new", ["NEW", None])
def test_chat_templates_as_transformers_chooses(folder, old, more, new):
    edit(folder, "tokenizer_config.json", chat_template=old)
    if new:
        (folder / "chat_template.jinja").write_text(new)
    for name in more:
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(name.upper())
    transformers = pytest.importorskip("transformers")
    want = transformers.AutoTokenizer.from_pretrained(str(folder)).chat_template
    want = want if isinstance(want, dict) else {} if want is None else {"default": want}
    assert templates(folder) == want
    warned = [w for w in read_vocab(folder, None, "llama").warnings if "another chat" in w]
    assert bool(warned) == bool(old not in (..., None, "") and (new or more))


def test_a_processors_template_is_the_last_resort(folder):
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "PROCESSOR"}))
    assert templates(folder) == {"default": "PROCESSOR"}
    edit(folder, "tokenizer_config.json", chat_template="OWN")
    assert templates(folder) == {"default": "OWN"}


def ends(folder):
    """Return the ids that end an answer in the file made."""
    return tokenizer_from_gguf(full(keys(folder))).eog_ids


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("said", [5, [5], [5, 6], [2, 5]])
def test_every_file_that_names_an_end_counts(folder, file, said):
    before = ends(folder)
    edit(folder, file, eos_token_id=said)
    assert ends(folder) == before | set(said if isinstance(said, list) else [said])


def test_ends_of_both_files_and_of_a_text_part_count(folder):
    before = ends(folder)
    edit(folder, "generation_config.json", eos_token_id=5)
    edit(folder, "config.json", text_config={"eos_token_id": [6]}, eos_token_id=...)
    assert ends(folder) == before | {5, 6}


def test_special_tokens_map_names_what_the_config_does_not(folder):
    tokens = full(keys(folder))["tokenizer.ggml.tokens"]
    edit(folder, "tokenizer_config.json", eos_token=...)
    for said in (tokens[2], {"content": tokens[2]}):
        edit(folder, "special_tokens_map.json", eos_token=said)
        assert keys(folder)["eos_token_id"] == 2
    edit(folder, "tokenizer_config.json", eos_token=tokens[0])
    assert keys(folder)["eos_token_id"] == 0


@pytest.mark.parametrize("said", ["x", 10**9, -1, True, {"a": 1}, [5, None, "x"]])
def test_ends_that_are_no_tokens_are_told(folder, said):
    edit(folder, "generation_config.json", eos_token_id=said)
    assert any("generation_config.json: eos_token_id" in w
               for w in read_vocab(folder, None, "llama").warnings)  # fmt: skip
    keys(folder)


def test_more_ends_than_keys_are_told(folder):
    edit(folder, "generation_config.json", eos_token_id=[5, 6, 7, 8])
    assert any("no key is left" in w for w in read_vocab(folder, None, "llama").warnings)


def split(pre):
    pattern = {"Regex": PRE_TOKENIZERS[pre].patterns[0]}
    step = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    plain = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [step, plain]}


@pytest.mark.parametrize("arch", ["gpt-oss", "llama", None])
@pytest.mark.parametrize("ignore", [True, False])
def test_an_id_that_all_readers_know_is_chosen_where_merges_reach_every_token(arch, ignore):
    vocab = {"a": 0, "b": 1, "ab": 2, "abab": 3}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"], ["ab", "ab"]]}
    made = {"pre_tokenizer": split("gpt-4o"), "model": {**model, "ignore_merges": ignore}}
    assert recognize(made, arch) == ("gpt-4o", False, ())


def test_a_token_that_merges_do_not_reach_needs_the_newer_id():
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": []}
    made = {"pre_tokenizer": split("gpt-4o"), "model": {**model, "ignore_merges": True}}
    assert recognize(made).id == "granite-embed-multi-97m"
    assert recognize(made, "gpt-oss").id == "gpt-4o"  # which is what its published files carry


@pytest.mark.parametrize("eos", [None, "[SEP]"])
@pytest.mark.parametrize("post", ["template", "bert", None])
def test_a_bert_text_ends_in_one_separator(tmp_path, eos, post):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{c}" for c in "abcd")]
    made = Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocab)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    closing = {"template": template, "bert": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))}
    if post:
        made.post_processor = closing[post]
    made.add_special_tokens(vocab[:5])
    made.save(str(tmp_path / "tokenizer.json"))
    named = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "eos_token": eos}
    edit(tmp_path, "tokenizer_config.json", tokenizer_class="BertTokenizer", **named)
    (tmp_path / "config.json").write_text("{}")
    tokenizer = tokenizer_from_gguf(full(keys(tmp_path, "bert")))
    for text in ("", "a", "ab cd", "xyz a"):
        ids = made.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text) == [2, *ids, 3]
        assert tokenizer.encode(text, add_special=False) == ids


def change_model(folder, **changes):
    found = json.loads((folder / "tokenizer.json").read_text())
    edit(folder, "tokenizer.json", model={**found["model"], **changes})


@pytest.mark.parametrize("name", ["end_of_word_suffix", "continuing_subword_prefix"])
def test_pieces_written_otherwise_within_words_are_refused(folder, name):
    change_model(folder, **{name: ""})
    keys(folder)
    change_model(folder, **{name: "</w>"})
    with pytest.raises(ModelError, match=f"{name} '</w>' has no GGUF form"):
        keys(folder)


def test_dropout_is_told_and_not_compared(folder):
    change_model(folder, dropout=0.5)
    assert read_vocab(folder, None, "llama").warnings == [
        "tokenizer.json: dropout 0.5 is left out: it is for training"
    ]


def test_what_transformers_does_only_when_asked_is_no_difference(folder):
    cut = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    edit(folder, "tokenizer.json", truncation=cut)
    change_model(folder, byte_fallback=True)  # letters that stand for bytes need none
    assert read_vocab(folder, None, "llama").warnings == []


@pytest.mark.parametrize(
    ("single", "told"),
    [
        ("bos text", None),
        ("bos bos text", "puts {bos} {bos} before a text and nothing after it, the file BOS"),
        ("other text", "puts {other} before a text and nothing after it, the file BOS"),
        ("bos text eos", None),
        ("text other eos", "nothing before a text and {other} {eos} after it, the file EOS"),
    ],
)
def test_what_stands_around_a_text_is_written_or_told(folder, single, told):
    names = {"bos": "<|endoftext|>", "eos": "<|im_end|>", "other": "<|im_start|>"}
    edit(folder, "tokenizer_config.json", bos_token=names["bos"], eos_token=names["eos"])
    parts = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if part == "text"
        else {"SpecialToken": {"id": names[part], "type_id": 0}}
        for part in single.split()
    ]
    ids = {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in enumerate(names.values())}
    post = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": ids}
    edit(folder, "tokenizer.json", post_processor=post)
    warnings = read_vocab(folder, None, "llama").warnings
    assert [told.format(**names) in w for w in warnings] == [True] if told else not warnings


@pytest.mark.parametrize("value", ["<nope>", ["</s>"], 7])
def test_a_special_token_that_is_none_is_told(folder, value):
    edit(folder, "tokenizer_config.json", bos_token=value)
    edit(folder, "config.json", bos_token_id=...)
    assert [w for w in read_vocab(folder, None, "llama").warnings if w.startswith("bos_token")]


@pytest.mark.parametrize("name", ["bos", "eos"])
def test_a_special_token_that_config_json_stands_in_for_is_told(folder, name):
    before = keys(folder)[f"{name}_token_id"]
    assert not read_vocab(folder, None, "llama").warnings
    edit(folder, "config.json", **{f"{name}_token_id": before})
    edit(folder, "tokenizer_config.json", **{f"{name}_token": "<nope>"})
    assert keys(folder)[f"{name}_token_id"] == before
    (warning,) = read_vocab(folder, None, "llama").warnings
    assert warning == f"{name}_token <nope> is no token: config.json's {before} is taken"


def test_a_vocabulary_without_ids_is_refused_as_that(folder):
    change_model(folder, vocab=["a", "b"])
    with pytest.raises(ModelError, match="the vocabulary of a BPE model names no ids"):
        keys(folder)


def test_files_of_templates_that_cannot_be_read(folder):
    more = folder / "additional_chat_templates"
    (more / "folder.jinja").mkdir(parents=True)
    os.mkfifo(more / "pipe.jinja")  # nobody writes to it
    assert templates(folder) == {}
    (more / "rag.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"rag.jinja: cannot be read"):
        keys(folder)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_flags_of_added_tokens_that_no_key_holds_are_told(folder, flag, file):
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert not any(
        "GGUF has no key" in line for line in read_vocab(folder, vocab, "llama").warnings
    )
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    token = {**tokens[0], flag: True}
    if file == "tokenizer.json":
        edit(folder, file, added_tokens=[token, *tokens[1:]])
    else:
        edit(folder, file, added_tokens_decoder={str(token["id"]): token})
    told = [
        line for line in read_vocab(folder, vocab, "llama", check=False).warnings if flag in line
    ]
    assert len(told) == 1 and token["content"] in told[0] and "GGUF has no key" in told[0]


@pytest.mark.parametrize(
    ("normalizer", "told"),
    [
        (None, False),
        ({"type": "NFC"}, False),
        ({"type": "Lowercase"}, True),
        ({"type": "Prepend", "prepend": "▁"}, True),
    ],
)
def test_added_tokens_that_are_looked_for_in_normalized_text_are_told(folder, normalizer, told):
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    token = {**tokens[0], "normalized": True}
    edit(folder, "tokenizer.json", added_tokens=[token, *tokens[1:]], normalizer=normalizer)
    lines = lost_flags(TokenizerFiles(folder), "llama", "llama-bpe", [token["content"]])
    assert [token["content"] in line and "(normalized)" in line for line in lines] == [True] * told
