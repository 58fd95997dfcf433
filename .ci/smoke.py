"""A wheel does its main job without a checkout: `.ci/wheel` copies this beside hfmaker.py."""

import os
import subprocess
import sys
from pathlib import Path

import hfmaker

import ggq

HERE = Path(__file__).resolve().parent


def command(*arguments: object, environment: dict[str, str] | None = None) -> str:
    """Run the installed ggq command; return its stdout."""
    words = [Path(sys.executable).with_name("ggq"), *map(str, arguments)]
    settings = {**os.environ, **(environment or {})}
    none = subprocess.DEVNULL
    done = subprocess.run(words, stdout=subprocess.PIPE, stdin=none, text=True, env=settings)
    if done.returncode:
        sys.exit(f"smoke: ggq {' '.join(map(str, arguments))} ended with {done.returncode}")
    return done.stdout


def shipped_kernels(package: Path, model: Path) -> str:
    """Have a model answer with each set of the wheel's kernels; say which compiled nothing."""
    from ggq.simd.target import available

    used = []
    for isa in available():
        if (package / "kernels" / f"{isa}.json").is_file():
            cache = Path(f"cache-{isa}").resolve()
            settings = {"GGQ_ISA": isa, "GGQ_CACHE": str(cache)}
            said = command("chat", model, "-p", "Hi", "--max-tokens", "8", environment=settings)
            assert said.strip(), f"{isa}: no answer"
            assert not [*cache.glob("jit/*/*.o")], f"{isa}: the wheel lacks kernels"
            used.append(isa)
    assert used or not [*(package / "kernels").glob("*")], "none of the wheel's kernels was tried"
    return f"; answered at once with its kernels for {', '.join(used)}" if used else ""


def main() -> None:
    """Convert a tiny model by command and by call, run both, look at what wheels forget."""
    package = Path(ggq.__file__).resolve().parent
    assert Path(sys.prefix).resolve() in package.parents, f"ggq comes from {package}"
    for data in (
        "runtime/server/page/index.html",
        "converters/calibration/calibration.txt",
        "py.typed",
    ):
        assert (package / data).is_file(), f"the wheel lacks {data}"
    folder = hfmaker.make_hf(HERE / "hf")
    command("check", folder)
    command("convert", folder, HERE / "a.gguf", "--type", "Q4_K_M", "--quiet")
    ggq.convert(folder, HERE / "b.gguf", "Q4_K_M", progress=False)
    assert (HERE / "a.gguf").read_bytes() == (HERE / "b.gguf").read_bytes()
    command("verify", HERE / "a.gguf")
    prompt = "The quick brown fox"
    said = command("chat", HERE / "a.gguf", "-p", prompt, "--temp", "0", "--max-tokens", "8")
    with ggq.load(HERE / "b.gguf", n_ctx=128) as model:
        again = "".join(model.generate(prompt, max_tokens=8, temperature=0.0))
    assert said.strip() and again
    used = shipped_kernels(package, HERE / "a.gguf")
    version = command("--version").strip()
    sys.stdout.write(f"{version} from {package}: converts and runs{used}\n")


if __name__ == "__main__":
    main()
