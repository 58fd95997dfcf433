"""Finds the packages by their folders: a new one needs no edit. All else is in pyproject.toml.

Only ``ggq`` is importable. The wheel is built from the real folders; the links ggq/converters,
ggq/runtime and ggq/models serve bare checkouts and tools (on Windows they may be text files).
Where ``python -m ggq.build_kernels`` put machine code into ggq/kernels, the wheel holds it and is
for this platform, with any Python; else it is for every platform.
"""

import platform
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel

FOLDERS = {
    "ggq": "ggq",
    "ggq.converters": "converters",
    "ggq.models": "models",
    "ggq.runtime": "runtime",
}
found = {f"{name}.{sub}" for name, folder in FOLDERS.items() for sub in find_packages(folder)}
shipped = sorted(Path("ggq/kernels").glob("*.so"))
# The libraries depend on nothing, so that the oldest systems that a wheel can name will do.
SYSTEMS = {
    "linux": "manylinux_2_17_{0}.musllinux_1_1_{0}",
    "darwin": "macosx_11_0_{0}",
    "win32": "win_{0}",
}


class Machine(Distribution):
    """What is built: for one platform where it holds machine code."""

    def has_ext_modules(self):
        """Tell so."""
        return bool(shipped)


class Wheel(bdist_wheel):
    """A wheel whose machine code asks for no certain Python."""

    def get_tag(self):
        """Return (Python, its binary interface, platform)."""
        if not shipped:
            return super().get_tag()
        return "py3", "none", SYSTEMS[sys.platform].format(platform.machine().lower())


setup(
    package_dir=FOLDERS,
    packages=sorted(found | FOLDERS.keys()),
    distclass=Machine,
    cmdclass={"bdist_wheel": Wheel},
)
