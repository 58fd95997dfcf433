"""The main job on a real model, as `make demo` runs it: pull, export, convert, chat, check.

Everything it writes is in the folder `demo`, which it makes anew.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

MODEL = "smollm2-135m"
FOLDER = Path(__file__).resolve().parents[1] / "demo"
# In exact float32 each token of this file's answer leads the next best by 1.2 or more; asked about
# France, the first leads by 0.07, so that rounding decides between Paris and nonsense.
QUESTION, ANSWER = "What is the capital of Germany?", "Berlin"


def ggq(*arguments: object, keep: bool = False) -> str:
    """Run one ggq command; return what it printed on stdout where ``keep`` asks for it."""
    words = [str(a) for a in arguments]
    print("$ ggq " + " ".join(f'"{w}"' if " " in w else w for w in words), flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ggq", *words],
        stdout=subprocess.PIPE if keep else None,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        sys.exit(f"demo: ggq {words[0]} ended with exit code {done.returncode}")
    if keep:
        print(done.stdout, end="", flush=True)
    print(f"  [{time.perf_counter() - start:.1f} s]\n", flush=True)
    return done.stdout or ""


def main() -> None:
    """Run the four steps; end with exit code 1 where one fails or the answer is wrong."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    source, target = FOLDER / f"{MODEL}-hf", FOLDER / f"{MODEL}-Q4_K_M.gguf"
    pulled = ggq("pull", MODEL, keep=True).splitlines()[-1]
    ggq("export", pulled, source)
    ggq("convert", source, target, "--type", "Q4_K_M")
    answer = ggq("chat", target, "-p", QUESTION, "--temp", "0", keep=True)
    if ANSWER not in answer:
        sys.exit(f"demo: the answer does not name {ANSWER}")
    command = Path(sys.executable).with_name("ggq")
    print(
        f"The answer names {ANSWER}: converted and talking. Go on with:\n  {command} chat {target}"
    )


if __name__ == "__main__":
    main()
