"""Tensors and keys against convert_hf_to_gguf.py itself, where a llama.cpp tree is at hand."""

import sys
from pathlib import Path

import pytest
from filediff import differences
from hfmaker import llama3_rope, make_hf

from ggq.converters.convert import convert
from ggq.gguf import open_gguf

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import oracle

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
LLAMA3 = llama3_rope(64)


ORACLE_CASES = {
    "spm-tied-bf16": {"tokenizer": "spm", "tie_word_embeddings": True, "dtype": "BF16"},
    "llama3-rope": {"rope_scaling": LLAMA3, "dtype": "BF16"},
    "mistral-head-dim": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "head_dim": 32,
        "dtype": "F16",
        "tokenizer": "spm",
    },
    "bpe-tied-yarn": {
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "linear-rope": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "spm-untied": {"tokenizer": "spm", "dtype": "F16"},
    "biases-sharded": {"attention_bias": True, "mlp_bias": True, "shards": 2},
}


@pytest.mark.parametrize("case", ORACLE_CASES)
def test_every_tensor_and_key_equals_convert_hf_to_gguf(tmp_path, case):
    pytest.importorskip("transformers")
    settings = ORACLE_CASES[case]
    folder = make_hf(tmp_path / "hf", **SMALL | settings)
    pre = None if settings.get("tokenizer") == "spm" else "gpt-2"
    try:
        want = oracle.convert_hf(folder, tmp_path / "want.gguf", "f32", pre)
    except oracle.OracleMissing as missing:
        pytest.skip(str(missing))
    (path,) = convert(folder, tmp_path / "got.gguf", "F32")
    with open_gguf(path) as ours, open_gguf(want) as theirs:
        assert differences(ours, theirs) == []
