"""The same tokens give the same logits, bit for bit: a sample of what invariance.py tries."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from ggufmaker import make_tiny_llama
from invariance import STEPS, THREADS, make_files, random_ids, try_all, widened
from schedules import ask, drain
from tinymodels import TINY

import ggq
from ggq.runtime.batching.scheduler import Scheduler
from ggq.runtime.kernels.attend import _chunk, chunks_of
from ggq.runtime.sampling import SamplingParams

MODELS = {  # type of file and of cache; heads of lfm2 are too narrow for quantized ones
    "gemma2": ("Q4_K_M", "f16"),  # windows, soft caps
    "gpt-oss": ("Q4_0", ("q8_0", "q4_0")),  # experts, sinks
    "qwen35moe": ("F16", "f32"),  # a delta net, experts
    "lfm2": ("Q4_0", "f16"),  # convolutions
    "mamba": ("Q4_0", "f16"),  # states of channels, no keys and values
    "falcon h1": ("Q4_K_M", "f16"),  # attention beside states
    "mamba2": ("F16", "f16"),  # states of heads in groups
    "deepseek2": ("Q4_K_M", "f16"),  # latent attention
    "bloom": ("Q4_0", "f16"),  # ALiBi
    "gemma3n shared": ("Q4_0", "f16"),  # alternating updates, sparse gates
    "llama wide": ("Q3_K_M", "f16"),  # blocks of 256 weights
}


@pytest.mark.parametrize("label", MODELS)
def test_logits_do_not_depend_on_the_way(label, tmp_path):
    rng = np.random.default_rng(len(label))
    kind, cache = MODELS[label]
    tiny = next(t for t in TINY if t.label == label.removesuffix(" wide"))
    (path,) = make_files(tiny if tiny.label == label else widened(tiny), tmp_path, [kind])
    threads = sorted(rng.choice(THREADS, 2, replace=False).tolist())
    ways = [(int(size), int(rng.integers(8))) for size in rng.choice(STEPS, 3, replace=False)]
    assert not try_all(path, random_ids(270), [cache], threads, ways, rng)


def test_a_request_gets_the_same_answer_again(tmp_path):
    rng = np.random.default_rng(2)
    requests = [
        (rng.integers(3, 200, int(rng.integers(5, 90))).tolist(), SamplingParams(**options))
        for options in 3 * [{"temperature": 0.0}] + 3 * [{"temperature": 1.5, "seed": 7}]
    ]
    answers = [set() for _ in requests]
    with ggq.load(make_tiny_llama(tmp_path / "tiny.gguf"), n_ctx=2048, threads=2) as model:
        scheduler = Scheduler(model.engine, model.tokenizer, n_slots=4, batch=32)
        for _ in range(3):  # in another order, beside others, from what the last rounds left
            asked = []
            for i in rng.permutation(len(requests)):
                ids, params = requests[i]
                asked.append((i, ask(scheduler, ids, params=params, max_tokens=12, logprobs=0)[1]))
                scheduler.step()
            drain(scheduler)
            for i, answer in asked:
                pieces = [p for p in answer.pieces if p.logprobs]
                answers[i].add(tuple((p.token_id, p.logprobs.logprob) for p in pieces))
    assert [len(each) for each in answers] == [1] * len(requests)


def test_chunks_of_attention_follow_each_other():
    number, end = -1, 0
    for page in range(3000):
        found = _chunk(page)
        if page == end:
            number, end = number + 1, found[2]
        assert found[0] == number
        assert found[1] <= page < found[2] == end
    assert [chunks_of(n // 64) for n in (64, 4096, 8192, 131072)] == [1, 16, 24, 56]
