"""llama.cpp's own converter and quantizer as functions, for development machines that have them.

``GGQ_LLAMA_CPP`` is a llama.cpp source tree (for convert_hf_to_gguf.py) and ``GGQ_LLAMA_BIN`` the
folder of its built tools (for llama-quantize); where absent the functions raise OracleMissing.
"""

import os
import subprocess
import sys
from pathlib import Path

DEV = Path("/work/dev")
TREE = DEV / "src/llama_cpp_python-0.3.36/vendor/llama.cpp"
# The converter recognises a pre-tokenizer by a hash of one text; a made-up vocabulary has none, so
# the tests name it. Everything else is the converter's own.
DRIVER = """
import runpy, sys
sys.path.insert(0, {tree!r}); sys.path.insert(0, {tree!r} + "/gguf-py")
import conversion.base as base
pre = {pre!r}
if pre:
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
sys.argv = ["convert_hf_to_gguf.py", *{args!r}]
runpy.run_path({tree!r} + "/convert_hf_to_gguf.py", run_name="__main__")
"""


class OracleMissing(Exception):
    """llama.cpp is not on this machine."""


def convert_hf(folder, out, outtype="f32", pre=None):
    """Run convert_hf_to_gguf.py; ``pre``: the pre-tokenizer to assume."""
    tree = Path(os.environ.get("GGQ_LLAMA_CPP", TREE))
    if not (tree / "convert_hf_to_gguf.py").is_file():
        raise OracleMissing(f"no convert_hf_to_gguf.py in {tree}")
    args = [str(folder), "--outtype", outtype, "--outfile", str(out)]
    driver = DRIVER.format(tree=str(tree), pre=pre, args=args)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    _run([sys.executable, "-c", driver], env)
    return Path(out)


def quantize(source, out, file_type, imatrix=None, options=()):
    """Run llama-quantize with 2 threads."""
    tool = Path(os.environ.get("GGQ_LLAMA_BIN", DEV / "llama-build/bin")) / "llama-quantize"
    if not tool.is_file():
        raise OracleMissing(f"no {tool}")
    extra = ["--imatrix", str(imatrix)] if imatrix else []
    _run([str(tool), *extra, *options, str(source), str(out), file_type, "2"], None)
    return Path(out)


def _run(command, env):
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
