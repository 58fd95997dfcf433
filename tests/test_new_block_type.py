"""A block type is its file and its kernels' file: one that is added works everywhere, unedited."""

import pytest
from newfiles import ROOT, copy_package, run_in

pytestmark = pytest.mark.slow

TYPE = '''
"""Q4_9: as Q4_0, with the largest magnitude at 7."""

import numpy as np

from ggq.quants.searched import Nibbles, SearchedType, flat


class Q4_9(Nibbles, SearchedType):
    """w = d * (code - 8)."""

    name, ggml_id, block_size, block_bytes = "Q4_9", 99, 32, 18
    file_type = 999
    better = "Q8_0"
    candidate_for = (32,)
    group, levels, zero, keeps_codes = 32, 16, 8, True
    layout = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    def quantize(self, x, importance=None):
        groups = x.reshape(len(x), -1, 32)
        d = (np.abs(groups).max(-1) / 7).astype(np.float16)
        safe = np.where(d == 0, 1, d).astype(np.float32)[..., None]
        codes = np.clip(np.rint(groups / safe) + 8, 0, 15).astype(np.uint8)
        return self.pack({"d": d}, flat(codes))


TYPE = Q4_9()
'''

SCRIPT = """
import json, sys
from types import SimpleNamespace
import numpy as np
import ggq
from ggq import cli, quants
from ggq.converters.prepasses.allocation import _candidates
from ggq.gguf import open_gguf, spec
from ggq.quants.mixtures import PlanTensor, plan
from ggq.runtime.backends.reference import logits
from ggq.runtime.engine.weights import Weights
from ggufmaker import make_tiny_llama

source = make_tiny_llama("source.gguf", spec.TYPE_IDS["F32"], n_layer=1)
kind = quants.get("q4_9")
x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
blocks = kind.quantize(x)
params, codes = kind.unpack(blocks)
assert (kind.pack(params, codes) == blocks).all()
said = {"round_trip": float(np.abs(kind.dequantize(blocks) - x).max() / np.abs(x).max())}

def quantize(name, *more):
    code = cli.main(["quantize", str(source), name, *more, "-q"])
    assert code == 0
    with open_gguf(name) as file:
        return file.get(spec.KEY_FILE_TYPE), {
            n: spec.type_name(t.type_id) for n, t in file.tensors.items()}

said["whole"] = quantize("whole.gguf", "--type", "q4_9")
said["one"] = quantize("one.gguf", "--type", "Q8_0", "--tensor-type", "ffn_up=Q4_9")[1]
ids = [1, 270, 300, 41, 350, 280, 333, 299, 265]
with ggq.load("whole.gguf", n_ctx=64, threads=1, cache_type="f32") as model:
    exact = logits(Weights(model.gguf), model.hparams, ids)
    error = np.sqrt(np.mean((model.logits(ids) - exact) ** 2)) / np.std(exact)
    said["kernels"] = float(error)
job = SimpleNamespace(tensors={n: SimpleNamespace(shape=(1, n)) for n in (96, 512)})
said["candidates"] = [_candidates(job, n, False) for n in (96, 512)]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    kernels = (ROOT / "ggq/quants/kernels/q4_0.py").read_text(encoding="utf-8")
    files = {"ggq/quants/types/q4_9.py": TYPE, "ggq/quants/kernels/q4_9.py": kernels}
    return run_in(copy_package(tmp_path_factory.mktemp("package"), files), SCRIPT)


def test_it_encodes_and_decodes(said):
    assert said["round_trip"] < 1 / 12


def test_a_file_and_a_tensor_are_made_of_it(said):
    number, types = said["whole"]
    assert number == 999 and types["blk.0.ffn_up.weight"] == "Q4_9"
    assert said["one"]["blk.0.ffn_up.weight"] == "Q4_9"
    assert said["one"]["blk.0.ffn_down.weight"] == "Q8_0"


def test_its_kernels_run(said):
    assert said["kernels"] < 0.03


def test_a_target_size_may_choose_it(said):
    odd, even = said["candidates"]
    assert "Q4_9" in odd and "Q4_9" not in even
