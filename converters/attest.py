"""Attests files: an in-toto statement of what a file is made of, and OpenSSF model signatures.

The statement says what the file itself tells (`ggq.provenance`, `ggq.recipe`); who wants it proved
verifies the file against its source. Signing is the package ``model-signing``'s.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from ggq.converters.prepasses.recipe import ENVIRONMENT
from ggq.converters.prepasses.recipe import KEY as RECIPE
from ggq.converters.provenance import read_provenance
from ggq.errors import FormatError, UsageError, option, printable, reason
from ggq.extras import how_to_install
from ggq.gguf import GGUFFile
from ggq.hub import file_sha256
from ggq.outputs import output_file

__all__ = ["check_signature", "sign", "statement"]

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
EXTERNAL = ("source", "revision", "type", "options")  # what was asked for
PACKAGE = "pkg:pypi/ggq"  # a purl: which program it was


def statement(file: GGUFFile) -> dict[str, Any]:
    """Return the statement about all shards of an open file, for JSON.

    UsageError where the file does not tell what it was made of.
    """
    told = read_provenance(file)
    if told is None:
        how = option("--provenance", "provenance=True")
        raise UsageError(
            f"{printable(file.path)}: does not record how it was made: convert with {how}"
        )
    subject = [
        {"name": shard.path.name, "digest": {"sha256": file_sha256(shard.path)}}
        for shard in file.shards
    ]
    return {
        "_type": STATEMENT,
        "subject": subject,
        "predicateType": PREDICATE,
        "predicate": _predicate(file, told),
    }


def _predicate(file: GGUFFile, told: dict[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {k: told[k] for k in EXTERNAL if k in told}
    internal: dict[str, Any] = {}
    if (text := file.get(RECIPE, type=str)) is not None:
        try:
            asked["recipe"] = json.loads(text)
        except ValueError:
            raise FormatError(f"{printable(file.path)}: key {RECIPE}: is not JSON") from None
        internal["environment"] = file.get(ENVIRONMENT, type=str)
    read = [{"name": n, "digest": {"sha256": d}} for n, d in told.get("files", {}).items()]
    matrix = told.get("imatrix", {})
    if "sha256" in matrix:
        read.append({"name": matrix.get("name"), "digest": {"sha256": matrix["sha256"]}})
    version = str(told.get("ggq"))
    return {
        "buildDefinition": {
            "buildType": f"{PACKAGE}#convert",
            "externalParameters": asked,
            "internalParameters": internal,
            "resolvedDependencies": read,
        },
        "runDetails": {"builder": {"id": f"{PACKAGE}@{version}", "version": {"ggq": version}}},
    }


def sign(path: Path, private_key: Path, signature: Path, force: bool = False) -> None:
    """Sign a file with an elliptic curve's key in PEM; UsageError."""
    target = output_file(signature, force)
    try:
        signer = _library("signing").Config().use_elliptic_key_signer(private_key=private_key)
        signer.sign(path, target)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{printable(private_key)}: cannot sign: {reason(error)}") from None


def check_signature(
    path: Path,
    signature: Path,
    public_key: Path | None = None,
    identity: tuple[str, str] | None = None,
) -> None:
    """Check a file's signature by a public key, or by a Sigstore identity and its issuer.

    FormatError where it does not hold; UsageError where it cannot be checked.
    """
    for given in (signature, public_key):
        if given is not None and not given.is_file():
            raise UsageError(f"{printable(given)}: no such file")
    config = _library("verifying").Config()
    try:
        if public_key is not None:
            config.use_elliptic_key_verifier(public_key=public_key)
        elif identity is not None:
            config.use_sigstore_verifier(identity=identity[0], oidc_issuer=identity[1])
        else:
            keys = f"{option('--public-key')}, or {option('--identity')} and --identity-provider"
            raise UsageError(f"{option('--signature')}: give {keys}")
        config.verify(path, signature)
    except UsageError:
        raise
    except Exception as error:  # the library's, cryptography's and sigstore's are of many kinds
        why = reason(error) or type(error).__name__
        raise FormatError(f"{printable(path)}: the signature does not hold: {why}") from None


def _library(part: str) -> Any:
    try:
        return import_module(f"model_signing.{part}")
    except ImportError as error:
        how = f"to sign and to check signatures, {how_to_install('sign')}"
        raise UsageError(f"{how} ({reason(error)})") from None
