"""One file per instruction set; the folder is scanned, so that adding a file adds a set.

A file declares ``SET`` (declared.py) and emits LLVM for already typed values; it knows neither
numba's typing nor any kernel: ``dot4``, ``lookup8``, ``lookup16``.
"""
