"""Writes the reference of the Python interface as HTML, from docstrings and signatures.

python tests/tools/reference.py build/reference
"""

import sys
import warnings
from pathlib import Path

# What users call, and what a new type, model, pass or back end is written against.
MODULES = (
    "ggq",
    "ggq.errors",
    "ggq.gguf",
    "ggq.quants",
    "ggq.quants.base",
    "ggq.models.base",
    "ggq.models.table",
    "ggq.models.layers",
    "ggq.converters.job",
    "ggq.converters.request",
    "ggq.converters.prepasses",
    "ggq.runtime.answers",
    "ggq.runtime.model",
    "ggq.runtime.texts",
    "ggq.runtime.engine.backend",
    "ggq.runtime.sampling",
)


def write(folder: Path) -> None:
    """Write the pages; what pdoc cannot resolve of an annotation stays as it is written."""
    import pdoc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pdoc.render.configure(docformat="markdown", show_source=False)
        pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
