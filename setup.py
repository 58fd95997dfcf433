"""Finds the packages by their folders: a new one needs no edit. All else is in pyproject.toml.

Only ``ggq`` is importable. The wheel is built from the real folders; the links ggq/converters,
ggq/runtime and ggq/models serve bare checkouts and tools (on Windows they may be text files).
"""

from setuptools import find_packages, setup

FOLDERS = {
    "ggq": "ggq",
    "ggq.converters": "converters",
    "ggq.models": "models",
    "ggq.runtime": "runtime",
}
found = {f"{name}.{sub}" for name, folder in FOLDERS.items() for sub in find_packages(folder)}

setup(package_dir=FOLDERS, packages=sorted(found | FOLDERS.keys()))
