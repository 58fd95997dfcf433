"""Every operation of vision towers, in every back end: equal to the float64 reference."""

from contextlib import closing

import numpy as np
import pytest
from floats import distance, float_weights
from picturecases import CASES, WIDTH, N

from ggq.runtime.backends.numba.pictures import PictureOps, padded_rows
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.cpu.executor import Executor

TOLERANCE = 1e-5


def on_numba(forward, picture):
    ops = PictureOps({}, padded_rows(np.zeros_like(picture)), more=2)
    value = forward(ops)
    plan = ops.recorder.finish(value.f32())
    with closing(Executor(2)) as executor:
        executor.run(plan)  # what a run leaves behind is not seen by the next one
        ops.picture[:] = picture
        executor.run(plan)
    return plan.output_rows(ops.count(value.slot), value.width)


def on_torch(forward, picture):
    pytest.importorskip("torch")
    from ggq.runtime.backends.torch.backend import TorchOps

    ops = TorchOps({})
    ops.picture = picture
    return forward(ops).numpy()


@pytest.mark.parametrize("back_end", [on_numba, on_torch], ids=["numba", "torch"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.label}")
def test_agrees_with_reference(case, back_end, rng):
    picture = rng.standard_normal((N, WIDTH)).astype(np.float32)
    ops = ReferenceOps({})
    ops.picture = picture
    want = case.forward(ops)
    assert np.abs(want).max() > 0
    assert distance(back_end(case.forward, picture), want) <= TOLERANCE


@pytest.mark.parametrize("width", [16, 20, 24])
def test_norms_of_narrow_heads_leave_their_neighbours_alone(width, rng):
    """A row that is as wide as its memory: what is written behind it is another's."""
    n_head = 256 * width // np.gcd(256, width) // width
    picture = rng.standard_normal((9, n_head * width)).astype(np.float32)
    weights = float_weights({"w": rng.standard_normal(width)})

    def forward(ops):
        ops.weights = weights
        return ops.norm(ops.patches(), "w", 1e-6, width=width)

    ops = ReferenceOps(weights)
    ops.picture = picture
    assert distance(on_numba(forward, picture), forward(ops)) <= TOLERANCE
