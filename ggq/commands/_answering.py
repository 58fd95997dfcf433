"""Options of ggq serve that hold for requests which do not say, and those of its address.

What each means is llama-server's; wrong values are told before any model is opened.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from ggq.errors import UsageError, printable, reason

ANSWER_OPTIONS = (
    click.option(
        "-n",
        "--predict",
        "--n-predict",
        "n_predict",
        type=click.IntRange(min=-1),
        metavar="N",
        help="Most tokens of an answer, for requests that do not say; -1: no limit.",
    ),
    click.option(
        "--chat-template",
        metavar="NAME|JINJA",
        help="Chat template instead of the model's: chatml, llama3, ..., or its source.",
    ),
    click.option(
        "--chat-template-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same from a file.",
    ),
    click.option(
        "--chat-template-kwargs",
        metavar="JSON",
        help="""Variables for the chat template: '{"enable_thinking": false}'.""",
    ),
    click.option(
        "--reasoning-format",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "none", "deepseek", "deepseek-legacy"]),
        help="Where thoughts go: auto, deepseek: reasoning_content; none: content; "
        "deepseek-legacy: both.",
    ),
    click.option(
        "--reasoning-budget",
        default=-1,
        show_default=True,
        metavar="N",
        type=click.IntRange(min=-1),
        help="Most tokens of thoughts; 0: no thinking, -1: no limit.",
    ),
)
HTTPS_OPTIONS = (
    click.option(
        "--api-prefix",
        default="",
        metavar="PATH",
        help="Put this before all paths, such as /ggq behind a proxy.",
    ),
    click.option(
        "--ssl-cert",
        "--ssl-cert-file",
        "ssl_cert",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Serve https with this certificate (PEM).",
    ),
    click.option(
        "--ssl-key",
        "--ssl-key-file",
        "ssl_key",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The certificate's key (PEM).",
    ),
)

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def answering(options: dict[str, Any]) -> dict[str, Any]:
    """Return what Settings take of these options; UsageError in one line."""
    if options["n_predict"] == 0:
        raise UsageError("-n: 0 is not a number of tokens from 1, or -1 for no limit")
    return {
        "n_predict": options["n_predict"] if (options["n_predict"] or -1) > 0 else None,
        "template": _template(options),
        "template_kwargs": _variables(options["chat_template_kwargs"]),
        "reasoning_format": options["reasoning_format"],
        "reasoning_budget": options["reasoning_budget"],
    }


def certificate(options: dict[str, Any]) -> tuple[Path, Path] | None:
    """Return the files for https, None for http; UsageError where they cannot be used."""
    files = options["ssl_cert"], options["ssl_key"]
    if files == (None, None):
        return None
    if None in files:
        raise UsageError("--ssl-cert and --ssl-key: give both, or neither")
    from ggq.runtime.server.start import check_certificate

    check_certificate(*files)
    return files


def prefix(options: dict[str, Any]) -> str:
    """Return what all paths begin with, "" for nothing; UsageError where it is no path."""
    found: str = options["api_prefix"].rstrip("/")
    if found and not _PREFIX.fullmatch(found):
        raise UsageError(f"--api-prefix {printable(found)}: expected a path such as /ggq")
    return found


def _template(options: dict[str, Any]) -> str | None:
    """Return a template's source or name, None for the model's own."""
    given: str | None = options["chat_template"]
    path: Path | None = options["chat_template_file"]
    if given is not None and path is not None:
        raise UsageError("--chat-template and --chat-template-file: give one of them")
    flag = "--chat-template"
    if path is not None:
        flag = f"--chat-template-file {printable(path)}"
        try:
            given = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{flag}: {reason(error)}") from None
        if "{{" not in given and "{%" not in given:
            raise UsageError(f"{flag}: is no Jinja template: it has neither {{{{ nor {{%")
    if given is not None and ("{{" in given or "{%" in given):
        from ggq.runtime.template.template import ChatTemplate

        if problem := ChatTemplate(given).problem():
            raise UsageError(f"{flag}: {problem.removeprefix('tokenizer.chat_template: ')}")
    return given


def _variables(given: str | None) -> dict[str, Any]:
    """Return the variables that a JSON object sets."""
    if given is None:
        return {}
    flag = "--chat-template-kwargs"
    try:
        found = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{flag}: is no JSON: {reason(error)}") from None
    if not isinstance(found, dict):
        raise UsageError(f'{flag}: expected an object: {{"enable_thinking": false}}')
    from ggq.runtime.server.prompts import reserved

    if name := reserved(found):
        raise UsageError(f"{flag}: {printable(name)} cannot be set")
    return found
