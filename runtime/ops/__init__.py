"""The operations of forward passes: a folder each, with a file per back end."""

import pkgutil

__all__ = ["op_names"]


def op_names() -> list[str]:
    """Return the names of all operations, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
