"""Files of ChatGLMModel as llama.cpp makes them: one tensor for queries, keys and values."""

from types import SimpleNamespace

import numpy as np
import pytest
from floats import distance, float_weights
from tinymodels import TINY, make_tiny

from ggq import models
from ggq.converters.convert import convert
from ggq.errors import ModelError
from ggq.gguf import open_gguf
from ggq.runtime.backends import reference
from ggq.runtime.engine.weights import Weights


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("chatglm")
    ids, want = make_tiny(next(t for t in TINY if t.label == "chatglm"), folder)
    return convert(folder, folder / "model.gguf", "F32")[0], ids, want


def test_one_tensor_serves_as_well_as_three(made):
    path, ids, want = made
    arch = models.get("chatglm")
    with open_gguf(path) as file:
        held = Weights(file)
        arrays = {name: held[name].dequantized() for name in file.tensors}
        for i in range(2):
            for suffix in ("weight", "bias"):
                parts = [arrays.pop(f"blk.{i}.attn_{n}.{suffix}") for n in "qkv"]
                arrays[f"blk.{i}.attn_qkv.{suffix}"] = np.concatenate(parts)
        tensors = {n: SimpleNamespace(shape=x.shape) for n, x in arrays.items()}
        source = SimpleNamespace(metadata=file.metadata, tensors=tensors)
        hp = arch.hparams(source)
    arch.check(source, hp)
    assert distance(reference.logits(float_weights(arrays), hp, ids), want) <= 1e-3
    with pytest.raises(ModelError, match="attn_qkv"):
        arch.export_config(hp)
