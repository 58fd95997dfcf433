"""The same tokens give the same logits, bit for bit: a sample of what invariance.py tries."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from invariance import STEPS, THREADS, make_files, random_ids, try_all
from tinymodels import TINY

from ggq.runtime.kernels.attend import _chunk, chunks_of

MODELS = {  # type of file and of cache; heads of lfm2 are too narrow for q8_0
    "gemma2": ("Q4_K_M", "f16"),  # windows, soft caps
    "gpt-oss": ("Q4_0", "q8_0"),  # experts, sinks
    "qwen35moe": ("F16", "f32"),  # a delta net, experts
    "lfm2": ("Q4_0", "f16"),  # convolutions
    "deepseek2": ("Q4_K_M", "f16"),  # latent attention
}


@pytest.mark.parametrize("label", MODELS)
def test_logits_do_not_depend_on_the_way(label, tmp_path):
    rng = np.random.default_rng(len(label))
    kind, cache = MODELS[label]
    (path,) = make_files(next(t for t in TINY if t.label == label), tmp_path, [kind])
    threads = sorted(rng.choice(THREADS, 2, replace=False).tolist())
    ways = [(int(size), int(rng.integers(8))) for size in rng.choice(STEPS, 3, replace=False)]
    assert not try_all(path, random_ids(270), [cache], threads, ways, rng)


def test_chunks_of_attention_follow_each_other():
    number, end = -1, 0
    for page in range(3000):
        found = _chunk(page)
        if page == end:
            number, end = number + 1, found[2]
        assert found[0] == number
        assert found[1] <= page < found[2] == end
    assert [chunks_of(n // 64) for n in (64, 4096, 8192, 131072)] == [1, 16, 24, 56]
