"""What tells Baichuans apart without a setting: the count of layers, the size of the vocabulary."""

import numpy as np
import pytest
from hfmaker import LLAMA

from ggq import models
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.errors import ModelError
from ggq.models.layers.base import Values

ARCH = models.get("baichuan")


@pytest.mark.parametrize(("n_vocab", "length"), [(64000, 5.0), (125696, 1.0)])
def test_rows_of_the_second_head_have_length_one(n_vocab, length):
    config = {**LLAMA, "architectures": ["BaichuanForCausalLM"], "model_type": "baichuan"}
    hp = ARCH.hparams(config | {"num_hidden_layers": 32, "vocab_size": n_vocab})
    (row,) = (row for name, row, _ in ARCH.rows(hp) if name == "output.weight")
    values = TRANSFORMS[row.transform].values
    x = np.array([[3.0, 4.0], [-4.0, 3.0]], np.float32)
    got = x if values is None else values(x)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), length, rtol=1e-6)


@pytest.mark.parametrize("n_layer", [2, 33, 80])
def test_other_numbers_of_layers_are_refused(n_layer):
    with pytest.raises(ModelError, match=rf"{n_layer} layers; 32 .* and 40 .* are known"):
        ARCH.complete(Values("baichuan", {"n_layer": n_layer}))
