"""``ggq check``: one line for what is supported, one for what is not and why."""

import json

import pytest
from ggufmaker import make_tiny_llama, raw_gguf, string_pair, u32_pair
from hfmaker import LLAMA, make_hf

from ggq import cli
from ggq.gguf import spec


def run(capsys, *args):
    code = cli.main(["check", *map(str, args)])
    out, err = capsys.readouterr()
    assert len(err.splitlines()) <= 1
    return code, out, err


def test_folder_and_config(tmp_path, capsys):
    folder = make_hf(tmp_path / "hf")
    code, out, _ = run(capsys, folder)
    assert code == 0 and "llama: supported, converts and runs; 2 layers of 256" in out
    assert "21 tensors" in out
    code, out, _ = run(capsys, folder / "config.json")
    assert code == 0 and "weights not looked at" in out


def test_gguf(tmp_path, capsys):
    code, out, _ = run(capsys, make_tiny_llama(tmp_path / "m.gguf"))
    assert code == 0 and "llama: supported, runs" in out and "F32" in out


UNSUPPORTED = [
    ({"architectures": ["NewMambaForCausalLM"], "state_size": 16}, "NewMamba", "state-space"),
    (
        {"architectures": ["NewLatentForCausalLM"], "kv_lora_rank": 512},
        "NewLatent",
        "latent attention",
    ),
    ({"architectures": ["NewForCausalLM"], "layer_norm_eps": 1e-5}, "New", "LayerNorm"),
    ({"architectures": ["OtherForCausalLM"], "alibi": False}, "Other", "tensor names"),
    ({"model_type": "t5", "is_encoder_decoder": True}, "t5", "cross-attention"),
]


@pytest.mark.parametrize(("config", "name", "piece"), UNSUPPORTED, ids=lambda v: str(v)[:20])
def test_unsupported_config_names_what_is_missing(config, name, piece, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "architectures": None} | config))
    code, out, err = run(capsys, tmp_path)
    assert code == 1 and out == ""
    assert name in err and "is not supported" in err
    assert ("missing: " in err or "why: " in err) and piece in err


def test_unsupported_gguf_names_what_is_missing(tmp_path, capsys):
    path = tmp_path / "m.gguf"
    keys = (string_pair(spec.KEY_ARCHITECTURE, "rwkv7"), u32_pair("rwkv7.wkv.head_size", 64))
    path.write_bytes(raw_gguf(keys))
    code, _, err = run(capsys, path)
    assert code == 1 and "'rwkv7' is not supported" in err and "RWKV" in err


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "x y/z"])
def test_nothing_there(source, capsys):
    code, _, err = run(capsys, source)
    assert code == 1 and "no such file or folder, nor a repository id" in err


def test_missing_tensor_is_named(tmp_path, capsys):
    path = tmp_path / "m.gguf"
    path.write_bytes(raw_gguf((string_pair(spec.KEY_ARCHITECTURE, "llama"),)))
    code, _, err = run(capsys, path)
    assert code == 1 and "llama.block_count" in err


def test_a_config_without_a_size_names_it(tmp_path, capsys):
    config = {k: v for k, v in LLAMA.items() if k != "vocab_size"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = run(capsys, tmp_path)
    assert code == 1 and "nothing says n_vocab" in err
