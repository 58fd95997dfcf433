"""The few functions of the operating system that the plan's threads call by address."""

import ctypes
import mmap
import sys
import time

__all__ = ["CLOCK_ID", "SLEEP_ARGUMENT", "WILL_NEED", "madvise", "system_calls"]


def _address(function) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def system_calls() -> tuple[int, int, int]:
    """Return addresses of (yield the core, sleep, clock_gettime); 0 where the system has no such.

    ``sleep`` takes microseconds on POSIX and milliseconds on Windows, as `SLEEP_ARGUMENT` says.
    """
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32")
        return _address(kernel32.SwitchToThread), _address(kernel32.Sleep), 0
    libc = ctypes.CDLL(None)
    return _address(libc.sched_yield), _address(libc.usleep), _address(libc.clock_gettime)


def madvise() -> int:
    """Return the address of madvise, 0 where the system has none (Windows)."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return 0
    return _address(ctypes.CDLL(None).madvise)


WILL_NEED = getattr(mmap, "MADV_WILLNEED", 3)
SLEEP_ARGUMENT = 1 if sys.platform == "win32" else 40
CLOCK_ID = getattr(time, "CLOCK_MONOTONIC", 1)
