"""Positions of tokens after and in pictures: transformers' get_rope_index says the same."""

from types import SimpleNamespace

import numpy as np
import pytest

from ggq.models.layers.rope import Rope
from ggq.runtime.cache.pictured import Pictured, kept, positions

TWO = Pictured(3, 2, 4), Pictured(13, 5, 3)  # text, picture, text, picture, text


def test_positions_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("transformers.models.qwen3_vl.modeling_qwen3_vl")
    kinds = torch.tensor([[0] * 3 + [1] * 8 + [0] * 2 + [1] * 15 + [0] * 4])
    grids = torch.tensor([[1, 4, 8], [1, 10, 6]])  # patches
    me = SimpleNamespace(
        config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    )
    model = module.Qwen3VLModel
    me.get_vision_position_ids = lambda *a, **k: model.get_vision_position_ids(me, *a, **k)
    want, _ = model.get_rope_index(me, torch.zeros_like(kinds), kinds, image_grid_thw=grids)
    want = want[:, 0].T.numpy()
    n = kinds.shape[1]
    np.testing.assert_array_equal(positions(TWO, 0, n), want)
    for cut in range(1, n):  # however a prompt is cut into steps
        halves = [positions(TWO, 0, cut), positions(TWO, cut, n - cut)]
        for half, part in zip(halves, (want[:cut], want[cut:]), strict=True):
            half = np.repeat(half[:, None], 3, axis=1) if half.ndim == 1 else half
            np.testing.assert_array_equal(half, part)


def test_text_alone_has_one_position_each():
    np.testing.assert_array_equal(positions((), 5, 3), [5, 6, 7])
    np.testing.assert_array_equal(positions(TWO, 28, 2), [28 - 4 - 10, 29 - 4 - 10])
    assert kept(TWO, 13) == TWO[:1] and kept(TWO, 14) == TWO


def test_pairs_turn_by_the_positions_of_their_sections():
    plain = Rope("neox", 24, sections=(2, 5, 5, 0))
    assert plain.axes == [0] * 2 + [1] * 5 + [2] * 5
    assert Rope("neox", 24, sections=(4, 4, 4, 0), interleaved=True).axes == [0, 1, 2] * 4
    assert Rope("neox", 16, sections=(4, 2, 2, 0), interleaved=True).axes == [
        0,
        1,
        2,
        0,
        1,
        2,
        0,
        0,
    ]
