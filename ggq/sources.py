"""What compiled code depends on: the sources of a module and of all that it imports, hashed.

Only imports at the left margin of modules of this package count: they alone bind the global names
that compiled functions use. An import inside a function or for type checkers binds none.
"""

import hashlib
import re
import secrets
import sys
from functools import cache
from pathlib import Path

__all__ = ["closure", "digest"]

_ROOT = Path(__file__).resolve().parent
_FROM = re.compile(r"^from (ggq[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)
_IMPORT = re.compile(r"^import (ggq[\w.]*)", re.MULTILINE)
# These emit no code and are imported by most; a test holds that no compiled function uses them.
_NO_CODE = frozenset({"ggq.errors", "ggq.paths"})


@cache
def _file(module: str) -> Path | None:
    """Return a module's source file, None where there is none."""
    if module.partition(".")[0] == "ggq":
        path = _ROOT.joinpath(*module.split(".")[1:])
        candidates = [path.with_name(path.name + ".py"), path / "__init__.py"]
    else:  # a test's or a user's own kernel
        candidates = [Path(getattr(sys.modules.get(module), "__file__", None) or "")]
    return next((p for p in candidates if p.is_file()), None)


@cache
def _source(module: str) -> tuple[str, frozenset[str]]:
    """Return the hash of a module's source and the modules of this package that it imports."""
    path = _file(module)
    text = path.read_text(encoding="utf-8") if path else secrets.token_hex()  # equal to no other
    found = set(_IMPORT.findall(text))
    for package, names in _FROM.findall(text):
        for name in re.sub(r"#.*|[()]", "", names).split(","):
            if words := name.split():  # "name" or "name as other"
                submodule = f"{package}.{words[0]}"
                found.add(submodule if _file(submodule) else package)
    return hashlib.sha256(text.encode()).hexdigest(), frozenset(found - _NO_CODE)


@cache
def closure(modules: frozenset[str]) -> frozenset[str]:
    """Return the modules, those that they import, those that these import, and so on."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _source(module)[1]
    return frozenset(found)


@cache
def digest(modules: frozenset[str]) -> str:
    """Return a hash of the sources of ``closure(modules)``."""
    lines = (f"{module} {_source(module)[0]}\n" for module in sorted(closure(modules)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
