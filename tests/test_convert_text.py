"""Greedy text: llama.cpp on our file writes what transformers writes from the HF folder."""

import os

import pytest
from hfmaker import make_hf

from ggq.converters.convert import convert

PROMPT = [1, 40, 41, 42, 99, 120, 7, 300]
N_NEW = 24
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES = {
    "bpe-untied": {},
    "spm-tied": {"tokenizer": "spm", "tie_word_embeddings": True},
    "rope-factors": {"rope_scaling": LLAMA3},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 32},
}


def by_transformers(folder):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        for _ in range(N_NEW):
            best = model(ids).logits[0, -1].argmax()
            ids = torch.cat([ids, best.reshape(1, 1)], dim=1)
    return ids[0].tolist()


def by_llama_cpp(path):
    llama_cpp = pytest.importorskip("llama_cpp")
    settings = {"n_ctx": 64, "n_threads": 1, "type_k": 0, "type_v": 0, "verbose": False}
    model = llama_cpp.Llama(str(path), logits_all=False, **settings)
    ids = list(PROMPT)
    for token in model.generate(PROMPT, temp=0.0, top_k=1, repeat_penalty=1.0):
        ids.append(int(token))
        if len(ids) == len(PROMPT) + N_NEW:
            break
    model.close()
    return ids


@pytest.mark.parametrize("case", CASES)
def test_greedy_text_is_the_same(tmp_path, monkeypatch, case):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    folder = make_hf(tmp_path / "hf", hidden_size=128, intermediate_size=256, **CASES[case])
    want = by_transformers(folder)
    (path,) = convert(folder, tmp_path / "x.gguf", "F32")
    got = by_llama_cpp(path)
    assert len(set(want[len(PROMPT) :])) > 1  # not one token over and over
    assert got == want
