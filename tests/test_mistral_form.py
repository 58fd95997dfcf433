"""Mistral's own form (params.json, consolidated.safetensors, tekken.json) and the usual one."""

import base64
import json

import numpy as np
import pytest
from hfmaker import make_hf, save
from quantmaker import E4M3, read_all
from quantmaker import save as save_typed

from ggq.cli import main
from ggq.converters.convert import convert
from ggq.converters.prepare import prepare
from ggq.converters.vocab import tekken
from ggq.converters.vocab.read import read_vocab
from ggq.errors import FormatError, GGQError
from ggq.gguf import open_gguf
from ggq.runtime.tokenizers import tokenizer_from_gguf
from ggq.runtime.tokenizers.pre_tokenizers import TEKKEN

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2}
PARAMS = {
    **{"dim": 32, "n_layers": 2, "head_dim": 8, "hidden_dim": 64, "n_heads": 4, "n_kv_heads": 2},
    **{"norm_eps": 1e-5, "rope_theta": 10000.0, "max_seq_len": 512, "use_biases": False},
}
INNER = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def own_name(name):
    """Return what Mistral calls a tensor of the usual form."""
    name = name.removeprefix("model.")
    for usual, own in (
        ("embed_tokens", "tok_embeddings"),
        ("lm_head", "output"),
        ("self_attn.", "attention."),
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.", "feed_forward."),
    ):
        name = name.replace(usual, own)
    for part in "qkvo":
        name = name.replace(f".{part}_proj", f".w{part}")
    for usual, own in INNER.items():
        name = name.replace(f".{usual}", f".{own}")
    return name


def in_pairs(x, n_head):
    """Return rows of heads with each half's in turns, the inverse of transformers' conversion."""
    halves = x.reshape(n_head, 2, -1, x.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(x.shape))


def make_own(folder, usual, name="consolidated.safetensors", **params):
    """Write a folder in Mistral's form with the weights of a usual one."""
    folder.mkdir()
    tensors = {}
    for called, (_, x) in read_all(usual).items():
        heads = {"q_proj": 4, "k_proj": 2}.get(called.split(".")[-2])
        tensors[own_name(called)] = in_pairs(x, heads) if heads else x
    save(folder, tensors)
    (folder / "model.safetensors").rename(folder / name)
    size = json.loads((usual / "config.json").read_text())["vocab_size"]
    (folder / "params.json").write_text(json.dumps(PARAMS | {"vocab_size": size} | params))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((usual / file).read_bytes())
    return folder


@pytest.fixture
def usual(tmp_path):
    return make_hf(tmp_path / "usual", **SIZES)


def data(tmp_path, source):
    convert(source, tmp_path / f"{source.name}.gguf", "F32", force=True)
    with open_gguf(tmp_path / f"{source.name}.gguf") as file:
        keys = [k for k in file.metadata if k.startswith("llama.")]
        return {k: file.metadata[k] for k in keys} | {n: bytes(file.data(n)) for n in file.tensors}


def test_the_same_file_as_from_the_usual_form(tmp_path, usual):
    want = data(tmp_path, usual)
    own = make_own(tmp_path / "own", usual)
    got = data(tmp_path, own)
    assert {k: v for k, v in got.items() if k in want} == want
    assert main(["check", str(own)]) == 0
    (own / "config.json").write_bytes((usual / "config.json").read_bytes())
    (own / "params.json").unlink()
    assert data(tmp_path, own) == want  # beside the usual config.json, too


def test_images_are_left_out_and_told(tmp_path, usual):
    own = make_own(tmp_path / "own", usual, vision_encoder={"hidden_size": 8})
    tensors = {n: x for n, (_, x) in read_all_of(own).items()}
    save(own, tensors | {"vision_encoder.patch_conv.weight": np.ones((2, 2), np.float32)})
    (own / "model.safetensors").replace(own / "consolidated.safetensors")
    with prepare(own, tmp_path / "x.gguf", "F16") as job:
        assert any("for images or sound are left out" in w for w in job.warnings)


def read_all_of(folder):
    (folder / "consolidated.safetensors").rename(folder / "model.safetensors")
    found = read_all(folder)
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    return found


def test_fp8_with_a_scale_for_each_weight(tmp_path, usual, rng):
    own = make_own(tmp_path / "own", usual, quantization={"qformat_weight": "fp8_e4m3"})
    tensors = read_all_of(own)
    name = "layers.0.attention.wq"
    byte = rng.integers(0, 0x7F, (32, 32)).astype(np.uint8)
    tensors[f"{name}.weight"] = "F8_E4M3", byte
    tensors[f"{name}.qscale_weight"] = "F32", np.float32(0.25)
    tensors[f"{name}.qscale_act"] = "F32", np.float32(3)
    save_typed(own, tensors)
    (own / "model.safetensors").replace(own / "consolidated.safetensors")
    got = np.frombuffer(data(tmp_path, own)["blk.0.attn_q.weight"], "<f4").reshape(32, 32)
    np.testing.assert_array_equal(got, (E4M3[byte] * 0.25).astype(np.float32))


def test_experts_and_long_contexts_become_mixtral_and_ministral():
    from ggq.converters.checkpoint import mistral

    moe = mistral.config(PARAMS | {"vocab_size": 9, "moe": {"num_experts": 4}})
    assert moe["architectures"] == ["MixtralForCausalLM"] and moe["num_local_experts"] == 4
    tensors = mistral.renamed({})
    assert tensors == ({}, [])
    yarn = {"factor": 16, "original_max_position_embeddings": 128, "beta": 32, "alpha": 1}
    long = {"yarn": yarn | {"apply_scale": False}, "llama_4_scaling": {"beta": 0.1}}
    found = mistral.config(PARAMS | {"vocab_size": 9} | long)
    assert found["architectures"] == ["Ministral3ForCausalLM"]
    rope = found["rope_parameters"]
    assert (rope["beta_fast"], rope["beta_slow"], rope["mscale_all_dim"]) == (32, 1, 1.0)
    assert rope["llama_4_scaling_beta"] == 0.1


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"kv_lora_rank": 512}, "params.json: kv_lora_rank 512 is not read"),
        ({"dim": None}, "params.json has no dim"),
        ({"use_biases": True}, "biases"),
        ({"quantization": {"qformat_weight": "int4"}}, "'int4' is not read, only fp8_e4m3"),
        ({"yarn": {"factor": 2}}, "yarn says no original_max_position_embeddings"),
        ({"moe": {}}, "moe is {}, no object"),
        ({"yarn": 5}, "yarn is 5, no object"),
        ({"n_heads": 0}, "no pairs of rows for 0 heads"),
        ({"n_heads": 3}, "no pairs of rows for 3 heads"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, usual, params, words):
    own = make_own(tmp_path / "own", usual, **params)
    with pytest.raises(GGQError) as error:
        prepare(own, tmp_path / "x.gguf", "F16")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_tensor_of_another_form_is_named(tmp_path, usual):
    own = make_own(tmp_path / "own", usual)
    tensors = {n: x for n, (_, x) in read_all_of(own).items()}
    save(own, tensors | {"layers.0.attention.wz.weight": np.ones((2, 2), np.float32)})
    (own / "model.safetensors").replace(own / "consolidated.safetensors")
    with pytest.raises(FormatError, match=r"wz\.weight is not one of Mistral's own form"):
        prepare(own, tmp_path / "x.gguf", "F16")


# -- tekken.json


def tekken_file(extra=(), **config):
    """Return tekken.json's object: all bytes, and what their pairs make; ``extra`` tokens."""
    pieces = [bytes([b]) for b in range(256)]
    pieces += [b"th", b" t", b"he", b" th", b"the", b" the", b"\xc3\xa4", b"er", b"  ", b"    "]
    pieces += extra
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": None}
        for i, p in enumerate(pieces)
    ]
    special = [
        {"rank": i, "token_str": text, "is_control": True}
        for i, text in enumerate(("<unk>", "<s>", "</s>", "[INST]", "[/INST]"))
    ]
    sizes = {"default_vocab_size": 16 + len(pieces), "default_num_special_tokens": 16}
    made = {"config": {"pattern": TEKKEN, "version": "v3"} | sizes | config, "vocab": vocab}
    return made | {"special_tokens": special}, pieces


TEXTS = ("the theatre   other", " tthe\n\n  er", "Bär 123 hethe ththe", "x = {'a': 4}\n    the")


def test_tekken_splits_as_tiktoken_does(tmp_path):
    tiktoken = pytest.importorskip("tiktoken")
    made, pieces = tekken_file()
    (tmp_path / "tekken.json").write_text(json.dumps(made))
    found = read_vocab(tmp_path, arch="llama")
    plain = {item.key: item.value for item in found}
    assert not found.warnings and plain["tokenizer.ggml.pre"] == "tekken"
    assert plain["tokenizer.ggml.tokens"][:4] == ["<unk>", "<s>", "</s>", "[INST]"]
    assert plain["tokenizer.ggml.tokens"][15] == "<SPECIAL_15>"
    assert plain["tokenizer.ggml.bos_token_id"] == 1 and plain["tokenizer.ggml.eos_token_id"] == 2
    ours = tokenizer_from_gguf(plain)
    ranks = {piece: i for i, piece in enumerate(pieces)}
    theirs = tiktoken.Encoding("t", pat_str=TEKKEN, mergeable_ranks=ranks, special_tokens={})
    for text in TEXTS:
        assert ours.encode(text) == [1, *(16 + i for i in theirs.encode(text))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": None}, "no config and vocab"),
        ({"config": {"pattern": "x", "default_vocab_size": 10}}, "says no pattern and sizes"),
        ({"vocab": [{"rank": 0, "token_bytes": "!"}]}, "entry 0 of vocab is malformed"),
        ({"vocab": [{"rank": 1, "token_bytes": "YQ=="}]}, "entry 0 of vocab is malformed"),
        ({"special_tokens": 3}, "special_tokens is no list"),
        ({"special_tokens": [{"rank": 99, "token_str": "x"}]}, "entry 0 of special_tokens"),
        ({"special_tokens": [{"rank": i, "token_str": "x"} for i in (0, 1)]}, "is there twice"),
    ],
)
def test_a_malformed_tekken_file_is_named(change, words):
    made, _ = tekken_file()
    with pytest.raises(FormatError, match=words):
        tekken.as_tokenizer_json(made | change)


def test_control_tokens_of_files_that_list_none():
    made, _ = tekken_file()
    del made["special_tokens"]
    added = tekken.as_tokenizer_json(made)["added_tokens"]
    assert [e["content"] for e in added][9:12] == ["[TOOL_CALLS]", "[IMG]", "<pad>"]
