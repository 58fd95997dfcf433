"""The same tokens give the same logits, bit for bit: a sample of what invariance.py tries."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from invariance import CACHES, STEPS, THREADS, make_files, random_ids, try_all
from tinymodels import TINY

from ggq.runtime.kernels.attend import _chunk, chunks_of

# Windows and soft caps, experts and sinks, experts and a delta net, convolutions, latent attention.
LABELS = ["gemma2", "gpt-oss", "qwen35moe", "lfm2", "deepseek2"]


@pytest.mark.parametrize("number, label", enumerate(LABELS), ids=LABELS)
def test_logits_do_not_depend_on_the_way(number, label, tmp_path):
    rng = np.random.default_rng(number)
    tiny = next(t for t in TINY if t.label == label)
    files = make_files(tiny, tmp_path, [("Q4_K_M", "Q4_0", "F16")[number % 3]])
    caches = [CACHES[number % len(CACHES)]]
    threads = sorted(rng.choice(THREADS, 2, replace=False).tolist())
    ways = [(int(size), int(rng.integers(8))) for size in rng.choice(STEPS, 3, replace=False)]
    assert not try_all(files[0], random_ids(270), caches, threads, ways, rng)


def test_chunks_of_attention_follow_each_other():
    number, end = -1, 0
    for page in range(3000):
        found = _chunk(page)
        if page == end:
            number, end = number + 1, found[2]
        assert found[0] == number
        assert found[1] <= page < found[2] == end
    assert [chunks_of(n // 64) for n in (64, 4096, 8192, 131072)] == [1, 16, 24, 56]
