"""A type of serving engines is a file of its grid and one of its layout: nothing else is edited."""

import pytest
from hfmaker import make_hf
from newfiles import copy_package, run_in

pytestmark = pytest.mark.slow

GRID = '''"""Codes of two bits around zero: -2, -1, 0, 1."""

from typing import ClassVar

import numpy as np

from ggq.converters.grids.kinds.integers import Integers


class Twos(Integers):
    CODES: ClassVar = {"INT2": 2}
    BLOCKS: ClassVar = {}
    heeds_importance = False

    def fit(self, x, importance=None):
        peak = np.abs(x).reshape(len(x), -1, self.group).max(-1)
        return {"d": self.rounded_scales(peak / 2)}


GRID = Twos
'''
LAYOUT = '''"""As pack-quantized, two bits a code."""

from ggq.converters.grids.base import ServingType
from ggq.converters.grids.layouts.pack_quantized import PackQuantized

LAYOUT = PackQuantized()
TYPES = (ServingType("W2A16", "INT2", LAYOUT, "weights of two bits"),)
'''
SCRIPT = """
import json, sys
import numpy as np
import ggq
from ggq.cli import main
from ggq.converters import grids
from ggq.converters.checkpoint.folder import Checkpoint
folder = sys.argv[1]
out = folder + "/two"
code = main(["convert", folder, out, "-t", "w2a16", "--group-size", "32", "-q"])
made, source = Checkpoint(out), Checkpoint(folder)
name = "model.layers.0.mlp.up_proj.weight"
kind = grids.kind("INT2-G32-F32")
want = kind.dequantize(kind.quantize(source.tensors[name].read(slice(None))))
told = json.load(open(out + "/config.json"))["quantization_config"]["config_groups"]["group_0"]
parts = ggq.convert(folder, folder + "/b", "W2A16", group_size=32, split_max_size="40k",
                    shard="1/2")
print(json.dumps({"code": code, "weights": told["weights"], "missing": parts.missing,
                  "same": bool((made.tensors[name].read(slice(None)) == want).all())}))
"""


def test_a_new_type_is_two_files(tmp_path):
    small = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}
    source = make_hf(tmp_path / "hf", **small)
    files = {
        "converters/grids/kinds/twos.py": GRID,
        "converters/grids/layouts/two_bits.py": LAYOUT,
    }
    found = run_in(copy_package(tmp_path / "package", files), SCRIPT, str(source))
    assert found["code"] == 0 and found["same"] and found["missing"]
    assert found["weights"]["num_bits"] == 2 and found["weights"]["symmetric"]
