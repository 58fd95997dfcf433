"""A tensor larger than memory allows is converted in slabs: RssAnon measured, in a subprocess."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hfmaker import LLAMA, shapes_of

from ggq.converters.safetensors import write_header

pytestmark = pytest.mark.slow

MEMORY = """
import json, sys, threading
from pathlib import Path
from ggq import models
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.encode import EncodeTask, encode_all
from ggq.converters.checkpoint.tensors import hf_tensors

folder = Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
arch = models.for_hf(config)
peak, stop = [0], threading.Event()
def watch():
    while not stop.wait(0.005):
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                peak[0] = max(peak[0], int(line.split()[1]))
tensors, _ = hf_tensors(Checkpoint(folder), arch, arch.hparams(config))
jobs = [EncodeTask(t, "Q8_0") for t in tensors if t.name == "blk.0.attn_q.weight"]
written = [0]
def write(name, rows):
    written[0] += rows.nbytes
thread = threading.Thread(target=watch)
thread.start()
encode_all(jobs, write, threads=2)
stop.set(); thread.join()
print(written[0], peak[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_a_3_gb_permuted_tensor_takes_little_memory(tmp_path):
    config = {"hidden_size": 4096, "num_attention_heads": 3072, "num_key_value_heads": 1}
    config |= {"head_dim": 128, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 32}
    full = {**LLAMA, **config}
    (tmp_path / "config.json").write_text(json.dumps(full))
    shapes = {n: ("BF16", s) for n, s in shapes_of(full)}
    size = sum(2 * int(np.prod(s)) for _, s in shapes.values())
    header = write_header(shapes)
    with open(tmp_path / "model.safetensors", "wb") as file:  # sparse: zeros take no disk
        file.write(header)
        file.truncate(len(header) + size)
    assert np.prod(shapes["model.layers.0.self_attn.q_proj.weight"][1]) * 2 > 3e9
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    written, peak_kib = map(int, done.stdout.split())
    assert written == 3072 * 128 * 4096 // 32 * 34
    assert peak_kib < 1_500_000, f"RssAnon reached {peak_kib} KiB"
