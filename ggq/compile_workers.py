"""Compiling in several processes at once: the caller's own and helpers that are told what to do.

A helper imports the module that makes a function, compiles it and sends the object file back. What
no helper can do (a function made at run time, no second processor, a helper that dies) is left to
the caller. A helper reads lines "module name" and answers with the size and the bytes.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from ggq.machine_code import Function

__all__ = ["helpers", "main"]

_WORTH = 6  # functions for a helper, which takes a second of processor time to start
_MOST = 8  # helpers; each takes some 150 MB


@contextmanager
def helpers(waiting: deque[Function], done: Callable[[Function, bytes], Any]) -> Iterator[None]:
    """While the caller takes functions off ``waiting``, have helpers take others.

    All have a ``home`` that a helper can import. ``done(function, object file)`` is called in a
    thread per helper. At the end helpers finish what they have begun; on an exception they are
    ended.
    """
    count = min(_processors() - 1, len(waiting) // _WORTH, _MOST)
    processes = [_start() for _ in range(count)]
    threads = [threading.Thread(target=_feed, args=(p, waiting, done)) for p in processes]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        waiting.clear()
        for process in processes:
            process.kill()
        raise
    finally:
        for thread in threads:
            thread.join()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start() -> subprocess.Popen[bytes]:
    """Start a helper that imports from where this process does: not from the working folder."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-I", "-c", program], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    )


def _feed(process: subprocess.Popen[bytes], waiting: deque[Function], done: Callable) -> None:
    """Give a helper one function after the other until none waits or it cannot go on."""
    with process:
        assert process.stdin
        assert process.stdout
        while True:
            try:
                function = waiting.popleft()
            except IndexError:
                return
            code = _asked(process.stdin, process.stdout, function)
            if not code:
                waiting.append(function)
                return
            done(function, code)


def _asked(questions: IO[bytes], answers: IO[bytes], function: Function) -> bytes:
    """Return the object file that a helper makes; empty if it makes none."""
    try:
        questions.write(f"{function.home} {function.path.name}\n".encode())
        questions.flush()
        size = int(answers.readline() or 0)
        code = answers.read(size)
    except (OSError, ValueError):
        return b""
    return code if len(code) == size else b""


def main() -> None:
    """Serve as a helper until there are no more lines."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing else may write there
    gc.disable()  # numba's types and modules live on: 7 % of the time looks for what is not there
    for line in sys.stdin:
        module, name = line.split()
        importlib.import_module(module)
        function = next(f for f in Function.made if f.home == module and f.path.name == name)
        code = function.compiled()
        answers.write(f"{len(code)}\n".encode() + code)
        answers.flush()
