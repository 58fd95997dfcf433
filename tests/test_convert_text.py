"""Greedy text: llama.cpp on our file writes what transformers writes from the HF folder."""

import os

import pytest
from hfmaker import llama3_rope, make_hf

from ggq.converters.convert import convert

PROMPT = "The quick brown fox: def größe(x):\n    return 3.14"
N_NEW = 24
LLAMA3 = llama3_rope(16)
LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "bpe-untied": {},
    # Seeds with which a tied model does not repeat its input.
    "bpe-tied": {"tie_word_embeddings": True, "seed": 4},
    "spm-tied": {"tokenizer": "spm", "tie_word_embeddings": True, "seed": 7},
    "spm-untied": {"tokenizer": "spm"},
    "linear-rope": {"rope_scaling": LINEAR},
    "yarn": {"rope_scaling": YARN},
    "rope-factors": {"rope_scaling": LLAMA3},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 32},
}


def tokenized(folder):
    """Return the prompt's ids by the folder's own tokenizer, as transformers makes them."""
    if not (folder / "tokenizer.model").exists():
        transformers = pytest.importorskip("transformers")
        return transformers.AutoTokenizer.from_pretrained(folder)(PROMPT)["input_ids"]
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [model.bos_id(), *model.encode(PROMPT)]


def by_transformers(folder):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([tokenized(folder)])
    with torch.no_grad():
        for _ in range(N_NEW):
            best = model(ids).logits[0, -1].argmax()
            ids = torch.cat([ids, best.reshape(1, 1)], dim=1)
    return ids[0].tolist()


def by_llama_cpp(path):
    llama_cpp = pytest.importorskip("llama_cpp")
    settings = {"n_ctx": 128, "n_threads": 1, "type_k": 0, "type_v": 0, "verbose": False}
    model = llama_cpp.Llama(str(path), logits_all=False, **settings)
    prompt = model.tokenize(PROMPT.encode(), add_bos=True, special=False)
    ids = list(prompt)
    for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0):
        ids.append(int(token))
        if len(ids) == len(prompt) + N_NEW:
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
    assert len(set(want[-N_NEW:])) > 1  # not one token over and over
    assert got == want
