"""What an instruction set says of itself. It knows no set and imports neither numba nor LLVM."""

import platform
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MACHINE", "InstructionSet", "x86_with"]

MACHINE = "arm" if platform.machine().lower() in ("arm64", "aarch64") else "x86"


@dataclass(frozen=True)
class InstructionSet:
    """One set of instructions that kernels can be compiled for.

    ``rank``: of the sets that a machine has, the highest is taken. ``runs_on(machine, features)``:
    whether a machine, "x86" or "arm", that has these of LLVM's features can execute it.
    ``cpu``, ``features``: LLVM's baseline, a processor that has the set and nothing that another
    one with the set might lack. ``dot``: the dot product's instruction, as tests look for it in
    assembly.
    """

    rank: int
    runs_on: Callable[[str, frozenset[str]], bool]
    cpu: str
    features: str
    dot: str | None
    lanes: int = 4  # of 32 bits in a register
    has_half: bool = True  # converts halves in one instruction
    has_fma: bool = True  # multiplies and adds in one instruction
    by_tokens: bool = False  # prefill is kernels/tokens.py's; codes above 127 become words there
    signed_wide: bool = False  # dot4 with ``wide`` takes codes less 128, signed bytes


def x86_with(*needed: str) -> Callable[[str, frozenset[str]], bool]:
    """Return a test for x86 processors that have all these features."""
    return lambda machine, features: machine == "x86" and features.issuperset(needed)
