"""Clusters, training and other engines' libraries are loaded where they are asked for, only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ggufmaker import make_tiny_llama
from hfmaker import make_hf

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = {"ray", "torch", "compressed_tensors", "transformers", "accelerate", "peft", "vllm"}
PLAIN = {
    "file": ("convert", "hf", "out.gguf"),
    "part": ("convert", "hf", "out.gguf", "--split-max-size", "1M", "--shard", "1/1"),
    "folder": ("convert", "hf", "out", "-t", "W4A16", "--group-size", "32"),
    "batch": ("batch", "in.jsonl", "out.jsonl", "-m", "tiny.gguf", "-t", "1"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_work_imports_none_of_what_is_optional(name, tmp_path):
    """Clusters, training and other engines' libraries are loaded where they are asked for."""
    if name == "batch":
        pytest.importorskip("starlette", reason="the extra serve is not installed")
        make_tiny_llama(tmp_path / "tiny.gguf", n_ctx=128)
        body = {"prompt": "a", "max_tokens": 1}
        line = {"custom_id": "a", "url": "/v1/completions", "body": body}
        (tmp_path / "in.jsonl").write_text(json.dumps(line), encoding="utf-8")
    else:
        make_hf(tmp_path / "hf", hidden_size=64, intermediate_size=96, num_attention_heads=2)
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); from ggq.cli import main; "
    code += (
        f"assert main({[*PLAIN[name], '-q']}) == 0; print(sorted({OPTIONAL} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
