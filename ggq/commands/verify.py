"""Check a GGUF file: structure, keys, weights, its source, its signature.

Finds what would stop or spoil a model; it repairs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ggq.commands._reporting import JSON, tell
from ggq.errors import FormatError, GGQError, UsageError, printable
from ggq.gguf import GGUFFile, TensorInfo, open_gguf, validate_model
from ggq.gguf.copy import slabs
from ggq.hub import resolve_model
from ggq.progress import progress_bar

SECTION = "Convert"

SLAB_BYTES = 4 << 20  # decoded to float32, up to 32 times as much


PATH = click.Path(path_type=Path)
OF_SOURCE = ("imatrix", "calibration", "via", "pre", "threads", "weights_only", "card")
OF_SIGNATURE = ("public_key", "identity", "identity_provider")


@click.command()
@click.argument("file")
@click.option("--tensors", is_flag=True, help="Decode every tensor and look for NaN and infinity.")
@click.option(
    "--source",
    help="Make every tensor again from this folder, repository or GGUF file, and compare.",
)
@click.option("--imatrix", type=PATH, help="Importance matrix that FILE was made with.")
@click.option("--calibration", type=PATH, help="Calibration data that FILE was made with.")
@click.option("--via", type=click.Choice(["f16"]), help="As given to convert, if not recorded.")
@click.option("--pre", metavar="ID", help="As given to convert, if not recorded.")
@click.option(
    "--weights-only", is_flag=True, help="With --source: compare tensors only, no metadata."
)
@click.option(
    "--card", is_flag=True, help="With --source: measure again what convert --card recorded."
)
@click.option(
    "-j", "--threads", type=click.IntRange(1, 1024), help="CPU threads; default: all cores."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@click.option("--signature", type=PATH, help="OpenSSF model signature of FILE to check.")
@click.option("--public-key", type=PATH, help="Elliptic curve key (PEM) that it was signed with.")
@click.option("--identity", help="Or who signed it with Sigstore, such as an email address.")
@click.option("--identity-provider", help="And the URL of the provider of that identity.")
@JSON
def command(file: str, tensors: bool, source: str | None, **given: Any) -> None:
    """Check a GGUF file; where something is wrong, say what in one line and exit with status 1.

    FILE: a path, or the name of a fetched model (ggq list). With --source every tensor is derived
    again, a slab at a time, and compared byte for byte, whoever made FILE of it; so is every key
    that the source decides.
    """
    _refuse_unused(given, "--source", source is not None, OF_SOURCE)
    _refuse_unused(given, "--signature", given["signature"] is not None, OF_SIGNATURE)
    path, as_json = resolve_model(file), bool(given["as_json"])
    facts: dict[str, Any] = {"file": str(path), "ok": True}
    lines = []
    try:
        if given["signature"] is not None:
            lines.append(check_signature(path, given))
            facts["signature"] = True
        if source is not None:
            lines.append(verify_source(path, source, given, facts))
        if source is None or tensors:
            lines.append(check(path, file, tensors, facts))
    except GGQError as error:
        if as_json:
            tell(True, facts | {"ok": False, "error": str(error)}, ())
        raise
    tell(as_json, facts, lines)


def _refuse_unused(given: dict[str, Any], flag: str, is_given: bool, names: Sequence[str]) -> None:
    """Refuse options that mean nothing without another one; UsageError."""
    unused = [name for name in names if given[name] and not is_given]
    if unused:
        raise UsageError(f"--{unused[0].replace('_', '-')}: goes with {flag}")


def check(path: Path, file: str, tensors: bool, facts: dict[str, Any]) -> str:
    """Check structure and keys, and with ``tensors`` every weight; return what to say."""
    with open_gguf(path) as f:
        facts["warnings"] = validate_model(f, vocab_only=not f.tensors)
        for warning in facts["warnings"]:
            click.echo(f"warning: {warning}", err=True)
        facts |= {"keys": len(f.metadata), "tensors": len(f.tensors)}
        checked = f"{len(f.metadata)} keys, {len(f.tensors)} tensors"
        if tensors:
            skipped = check_weights(f)
            facts |= {"finite": True, "not_decoded": dict(skipped)}
            checked += ", all weights finite"
            for name, count in skipped.items():
                click.echo(f"warning: {count} tensors of type {name} not decoded", err=True)
        f.check_unchanged()
    return f"{printable(file)}: ok ({checked})"


def check_signature(path: Path, given: dict[str, Any]) -> str:
    """Return that the signature holds; FormatError."""
    from ggq.converters import attest

    pair = (given["identity"], given["identity_provider"])
    if (pair[0] is None) != (pair[1] is None):
        raise UsageError("--identity and --identity-provider: give both")
    identity = None if pair[0] is None else pair
    attest.check_signature(path, given["signature"], given["public_key"], identity)
    return f"{printable(path)}: the signature holds"


def verify_source(path: Path, source: str, given: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return that the file is what ``source`` gives; FormatError with the first difference."""
    from ggq.converters.verify import Settings, verify

    settings = Settings(**{name: given[name] for name in OF_SOURCE})
    with progress_bar(given["quiet"]) as progress:
        verdict = verify(path, source, settings, progress)
    for note in verdict.notes:
        click.echo(f"note: {note}", err=True)
    shown, where = printable(path), printable(source)
    wrong = [*verdict.differs, *verdict.unknown]
    facts |= {"source": source, "same_tensors": verdict.n_same, "same_keys": verdict.n_keys}
    facts |= {"notes": verdict.notes, "differs": verdict.differs, "not_verified": verdict.unknown}
    for line in wrong if len(wrong) > 1 and not given["as_json"] else []:
        click.echo(line)
    if verdict.differs:
        # A tensor says more than the keys that stand before it.
        first = next((d for d in verdict.differs if d.startswith("tensor")), verdict.differs[0])
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise FormatError(f"{shown}: is not what {where} gives: {first}{more}")
    if verdict.unknown:
        n = f"{verdict.n_same} of {verdict.n_tensors} tensors are what {where} gives"
        raise FormatError(f"{shown}: not verified: {n}; {verdict.unknown[0]}")
    counted = f"{verdict.n_same} tensors and {verdict.n_keys} keys are what {where} gives"
    return f"{shown}: verified ({counted})"


def check_weights(f: GGUFFile) -> Counter[str]:
    """Raise FormatError naming the first tensor with a NaN or infinity; count types not decoded."""
    skipped: Counter[str] = Counter()
    for tensor in f.tensors.values():
        try:
            finite = all(np.isfinite(values).all() for values in _decoded(f, tensor))
        except GGQError:  # a type that ggq cannot decode
            skipped[tensor.type_name] += 1
            continue
        if not finite:
            where = f"{printable(f.path)}: tensor '{printable(tensor.name)}'"
            raise FormatError(f"{where}: holds a NaN or infinite weight")
    return skipped


def _decoded(f: GGUFFile, tensor: TensorInfo) -> Iterator[np.ndarray]:
    from ggq import quants

    decode = quants.by_id(tensor.type_id).dequantize
    for slab in slabs(f, tensor, SLAB_BYTES):
        yield decode(slab)
