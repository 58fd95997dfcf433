"""`ggq.convert`: what Python and the command line may ask, as keywords, made into a request.

`prepare` and `Options` are named here for who plans a conversion step by step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from ggq.arguments import check_settings, checked
from ggq.converters.conversion import Options, Progress
from ggq.converters.imatrix import Imatrix
from ggq.converters.job import run
from ggq.converters.prepare import prepare
from ggq.converters.request import Events, Request, Result
from ggq.errors import UsageError, option, printable
from ggq.gguf.units import bytes_of
from ggq.progress import progress_bar

if TYPE_CHECKING:
    from typing_extensions import Unpack
else:
    Unpack = list  # Python 3.10 has none, and nothing looks at it when the program runs

__all__ = ["Options", "Settings", "convert", "make_request", "prepare"]


class Settings(TypedDict, total=False):
    """Everything that may be asked of a conversion, by the names of ``ggq convert``'s flags."""

    prepasses: Sequence[str | Callable[..., Any]]  # names with options, passes, functions
    imatrix: Imatrix | str | os.PathLike[str] | None
    quality: str | None  # "fast", "good" or "best"
    recipe: str | os.PathLike[str] | None
    calibration: str | os.PathLike[str] | None
    target_size: int | str | None  # bytes, or text such as "2G"
    target_bpw: float | None
    target_kld: float | None  # nats a token: the smallest file that keeps to it
    plan: str | os.PathLike[str] | None
    report: str | os.PathLike[str] | None
    card: bool
    pure: bool
    tensor_types: Sequence[str]  # "REGEX=TYPE", the first match counts
    output_tensor_type: str | None
    token_embedding_type: str | None
    via: str | None
    allow_requantize: bool
    pre: str | None
    mtp: bool  # False: leave out the heads that predict further tokens
    split_max_size: int | str | None
    shard: str | None  # "I/N": N tasks make the files that split_max_size cuts, this is the I-th
    threads: int | None
    merge_lora: Sequence[str | os.PathLike[str]]  # folders of adapters to add to the weights
    base: str | os.PathLike[str] | None  # of an adapter: its model's folder, repository or file
    mmproj: str | os.PathLike[str] | bool | None  # the vision part, too: its file, True: beside
    mmproj_type: str | None  # F16 (default), BF16, F32 or Q8_0
    only_mmproj: bool  # the vision part instead of the text model
    group_size: int | None  # weights a scale, of types such as W4A16
    ignore: Sequence[str]  # expressions: modules that such a folder keeps as they are
    provenance: bool
    force: bool
    options: Options  # the same as one value; keywords beside it count more


_REQUEST = (
    *("prepasses", "imatrix", "quality", "recipe", "calibration"),
    *("target_size", "target_bpw", "target_kld", "plan", "report", "card", "mmproj", "mmproj_type"),
    "shard",
)
_MIXTURE = ("pure", "output_tensor_type", "token_embedding_type")
_OPTIONS = (
    *("via", "allow_requantize", "provenance", "pre", "mtp", "threads", "force"),
    *("merge_lora", "base", "group_size", "ignore"),
)


@checked
def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    type: str | None = None,
    progress: Progress | bool | None = None,
    **settings: Unpack[Settings],
) -> Result:
    """Convert an HF folder, an HF repository id, a GGUF file or an adapter to a GGUF file.

    ``out``: a file, a folder or None for a name by convention. ``type``: Q4_K_M where neither it
    nor a recipe says so; W4A16, FP8 and the like (docs/export.md) make ``out`` a folder.
    ``progress``: True for a bar on stderr, or a function that is called with weights done, in all,
    and a tensor's name. Further keywords are `Settings`: all that ``ggq convert`` can do, by the
    names of its flags. Each of ``prepasses`` is a name with options, a pass of `ggq.prepass` or a
    function that is called with the `Conversion` before it runs. Returns the paths and what is in
    them. Raises GGQError naming the file, tensor, key or option at fault.
    """
    return run(make_request(source, out, type, **settings), _Told(progress))


def make_request(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    type: str | None = None,
    **settings: Unpack[Settings],
) -> Request:
    """Return the request that keywords or flags make; UsageError for what is none of `Settings`."""
    given = {k: v for k, v in check_settings(settings, Settings).items() if v is not None}
    for name, value in {"out": out, "type": type, **given}.items():
        if isinstance(value, str) and not value.strip():
            raise UsageError(f"{option('--' + name.replace('_', '-'), name)}: is empty")
    options = given.get("options", Options())
    pairs = (*options.mixture.tensor_types, *map(_pattern, given.get("tensor_types", ())))
    mixture = replace(options.mixture, tensor_types=pairs, **_chosen(given, _MIXTURE))
    changed = _chosen(given, _OPTIONS)
    if "via" in changed:
        changed["via"] = changed["via"].lower()
    for name, flag in {"mmproj": "only_mmproj", "beside": "mmproj"}.items():
        changed |= {name: True} if given.get(flag) else {}
    if "split_max_size" in given:
        changed["split_max_bytes"] = bytes_of(given["split_max_size"])
    options = replace(options, mixture=mixture, **changed)
    if "target_size" in given:
        given["target_size"] = bytes_of(given["target_size"])
    if given.get("mmproj_type"):
        if given.get("only_mmproj"):
            type = type or given["mmproj_type"]
        elif not given.get("mmproj"):
            raise UsageError(f"{option('--mmproj-type', 'mmproj_type')}: needs --mmproj, too")
    return Request(source, out, type, options=options, **_chosen(given, _REQUEST))


def _chosen(given: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _pattern(text: str) -> tuple[str, str]:
    """Return the expression and the type of ``REGEX=TYPE``."""
    pattern, equals, kind = text.rpartition("=")
    if not equals or not pattern:
        what = f"{option('--tensor-type', 'tensor_types')} {printable(text)}"
        raise UsageError(f"{what}: expected REGEX=TYPE")
    return pattern, kind


class _Told(Events):
    def __init__(self, progress: Progress | bool | None) -> None:
        if not isinstance(progress, bool) and progress is not None and not callable(progress):
            given = printable(repr(progress), 60)
            raise UsageError(f"progress: expected a function, True, False or None, not {given}")
        self._progress = progress

    def progress(self) -> AbstractContextManager[Progress | None]:
        """Return a bar where it was asked for, or what the caller gave."""
        if isinstance(self._progress, bool):
            return progress_bar(quiet=not self._progress)
        return nullcontext(self._progress)
