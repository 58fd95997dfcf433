"""A pre-pass is one new file: its options, class, cost and needs are all found by it."""

import json

import pytest
from hfmaker import make_hf
from newfiles import copy_package, run_in

pytestmark = pytest.mark.slow

DUSTING = '''"""Sets small weights to zero."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ggq.converters.prepasses.base import Prepass, Replaced
from ggq.converters.prepasses.cost import Cost


@dataclass
class Dusting(Prepass):
    """``below``: what is smaller becomes 0."""

    NEEDS: ClassVar[tuple[str, ...]] = {needs}

    below: float = 1e-3

    def cost(self, sizes):
        return Cost(operations=1e9, nbytes=float(sizes.weights))

    def __call__(self, job):
        tensor = job.tensors["output.weight"]
        values = tensor.read(0, tensor.shape[0]).copy()
        values[np.abs(values) < self.below] = 0
        job.tensors["output.weight"] = Replaced(tensor.name, tensor.shape, values)
        self.note(job, "none")


PREPASS = Dusting
'''

SCRIPT = """
import json, sys
import ggq
from ggq.cli import main
from ggq.gguf import open_gguf
folder = sys.argv[1]
out = folder + "/dusted.gguf"
code = main(["convert", folder, out, "-t", "F16", "--prepass", "dusting:below=0.01"])
with open_gguf(out) as file:
    told = {key: file.get(key, type=str) for key in ("ggq.prepass.dusting", "ggq.recipe")}
    zeros = int((file.data("output.weight").view("<f2") == 0).sum())
made = ggq.convert(folder, folder + "/b.gguf", type="F16", prepasses=[ggq.prepass.Dusting(0.01)])
print(json.dumps({"code": code, "zeros": zeros, "listed": "Dusting" in dir(ggq.prepass), **told}))
"""
REFUSED = """
import json, sys
from ggq.cli import main
print(json.dumps(main(["convert", sys.argv[1], sys.argv[1] + "/x.gguf", "--prepass", "dusting"])))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_hf(tmp_path_factory.mktemp("dusting") / "hf")


def test_a_new_pass_is_one_file(source, tmp_path):
    text = DUSTING.replace("{needs}", "()")
    package = copy_package(tmp_path, {"converters/prepasses/dusting.py": text})
    found = run_in(package, SCRIPT.replace("Dusting(0.01)", "Dusting(below=0.01)"), str(source))
    assert found["code"] == 0 and found["listed"] and found["zeros"] > 0
    assert "below=0.01" in found["ggq.prepass.dusting"]
    assert json.loads(found["ggq.recipe"])["passes"][0]["dusting"]["below"] == 0.01


def test_a_pass_says_what_it_needs(source, tmp_path):
    text = DUSTING.replace("{needs}", '("no_such_library",)')
    package = copy_package(tmp_path, {"converters/prepasses/dusting.py": text})
    assert run_in(package, REFUSED, str(source)) != 0
    assert not (source / "x.gguf").exists()
