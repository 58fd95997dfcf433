"""Writes tests/data/mps_ops.json: the aten operations that PyTorch has for MPS.

``python tests/tools/mps_ops.py`` reads native_functions.yaml as the installed torch wheel carries
it (torchgen/packaged/ATen/native): the operators with a kernel under the dispatch key MPS.
"""

import json
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "data" / "mps_ops.json"


def functions():
    """Return operator name -> its entry in torch's table."""
    import torchgen
    import yaml

    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native"
    table = yaml.safe_load((path / "native_functions.yaml").read_text("utf-8"))
    return {entry["func"].split("(")[0]: entry for entry in table}


def keys(table, name):
    """Return the dispatch keys under which an operator has a kernel."""
    entry = table[name]
    entry = table[entry["structured_delegate"]] if "structured_delegate" in entry else entry
    return {key.strip() for group in entry.get("dispatch", ()) for key in group.split(",")}


def main():
    """Write the list, functional and in-place operators without those of backward passes."""
    import torch

    table = functions()
    names = [n for n in table if "MPS" in keys(table, n)]
    names = [n for n in names if "backward" not in n and "out" not in n.partition(".")[2]]
    source = f"pytorch {torch.__version__.partition('+')[0]}, native_functions.yaml: dispatch MPS"
    OUT.write_text(json.dumps({"source": source, "ops": sorted(names)}, indent=0) + "\n")


if __name__ == "__main__":
    main()
