"""Serve models to OpenAI's and Ollama's clients, with a page to chat on.

Options only; the server itself is ``ggq.runtime.server``.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ggq.commands._answering import ANSWER_OPTIONS, HTTPS_OPTIONS, answering, certificate, prefix
from ggq.commands._cache import DISK, cache_options, cache_type
from ggq.commands._devices import DEVICE_OPTIONS, THREADS, weights
from ggq.commands._draft import DRAFT_OPTIONS, drafting
from ggq.commands._groups import GroupedCommand
from ggq.commands._lora import LORA
from ggq.commands._models import MODEL, YES, model_path, one_model
from ggq.commands._pictures import MMPROJ
from ggq.commands._sampling import sampling_flags, sampling_options
from ggq.errors import UsageError, printable, reason
from ggq.extras import how_to_install
from ggq.runtime.sampling import SamplingParams

SECTION = "Run"

_NEEDED = (
    "starlette",
    "uvicorn",
    "msgspec",
    "prometheus_client",
    "markdown_it",
    "pygments",
    "latex2mathml",
)
_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535)),
    click.option(
        "--api-key",
        multiple=True,
        metavar="KEY",
        help="Accept only requests with this key; repeatable.",
    ),
    click.option(
        "--api-key-file", type=click.Path(path_type=Path), help="File of API keys, one per line."
    ),
    click.option(
        "--parallel",
        default=4,
        show_default=True,
        type=click.IntRange(1, 64),
        help="Answers that are generated at the same time.",
    ),
    click.option(
        "-c",
        "--ctx",
        type=int,
        help="Context per answer in tokens; 0: all the model was trained for; default: up to 4096.",
    ),
    THREADS,
    *cache_options(),
    DISK,
    *DEVICE_OPTIONS,
    *DRAFT_OPTIONS,
    LORA,
    MMPROJ,
    click.option(
        "--max-queue",
        default=64,
        show_default=True,
        type=click.IntRange(0, 10_000),
        help="Requests that may wait; further ones get status 429.",
    ),
    click.option(
        "--fetch-images",
        is_flag=True,
        help="Fetch pictures that requests give as URLs, from public addresses only.",
    ),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        help="Most tokens of any answer, whatever a request says.",
    ),
    click.option(
        "--max-body",
        default=16,
        show_default=True,
        type=click.IntRange(1, 1024),
        help="Largest request in MiB.",
    ),
    click.option(
        "--alias", metavar="NAME", help="Name that clients see; default: the file's name."
    ),
    click.option(
        "--models-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Without MODEL: serve the GGUF files of this folder instead of what ggq list shows.",
    ),
    click.option(
        "--keep-alive",
        metavar="TIME",
        help="Without MODEL: unload a model that was unused so long: 0, 1h30m; -1: never [5m]",
    ),
    click.option(
        "--memory",
        metavar="SIZE",
        help="Without MODEL: memory of all models together; default: what is free at the start.",
    ),
    *ANSWER_OPTIONS,
    *HTTPS_OPTIONS,
    click.option(
        "--cors-origin",
        multiple=True,
        metavar="ORIGIN",
        help="Allow web pages of this origin; repeatable.",
    ),
    click.option(
        "--allow-host",
        multiple=True,
        metavar="NAME",
        help="Accept this host name, too; repeatable.",
    ),
    YES,
    click.option("-v", "--verbose", is_flag=True, help="Log a line per request on stderr."),
)


def serve_options(function: Any) -> Any:
    """Decorate a command with all options."""
    function = sampling_options(function)
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_GROUPS = {
    "Address": (
        "host", "port", "api_prefix", "api_key", "api_key_file", "ssl_cert", "ssl_key",
        "cors_origin", "allow_host", "max_body", "max_queue",
        "fetch_images",
    ),
    "Models": ("alias", "models_dir", "keep_alive", "memory", "lora", "mmproj", "yes"),
    "Defaults of requests": (
        "n_predict", "chat_template", "chat_template_file", "chat_template_kwargs",
        "reasoning_format", "reasoning_budget", "max_tokens",
    ),
    "Memory and speed": (
        "parallel", "ctx", "threads", "cache_type", "cache_type_k", "cache_type_v",
        "cache_disk", "device", "device_weights", "no_mmap", "draft", "draft_max",
    ),
    "Sampling defaults of requests": tuple(f.name for f in fields(SamplingParams)),
}  # fmt: skip


@click.command(cls=GroupedCommand, groups=_GROUPS)
@click.argument("model", required=False)
@MODEL
@serve_options
def command(model: str | None, model_option: str | None, **options: Any) -> None:
    """Serve MODEL at http://127.0.0.1:8080 (the page), /v1 (OpenAI's interface), /api (Ollama's).

    MODEL: a GGUF file, a short name or org/repo[:Q4_K_M]. Without it requests choose among the
    models on this machine, which are loaded when they are asked for.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"ggq serve needs {', '.join(missing)}: {how_to_install('serve')}")
    from ggq.runtime.server.start import check_address

    model, keys = one_model(model, model_option), _keys(options)
    options["sampling"] = sampling_flags(options)
    SamplingParams.resolve(options["sampling"])  # wrong ones are told before any work
    options["answering"] = answering(options)
    check_address(options["host"], options["port"])
    options["certificate"], options["prefix"] = certificate(options), prefix(options)
    if options["verbose"]:
        logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
        logging.getLogger("ggq.server").setLevel(logging.INFO)
    if model is None:
        _serve_many(keys, options)
    else:
        _serve_one(model_path(model, options["yes"]), keys, options)


def _load_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return what `ggq.load` is told of each model."""
    limits = {"n_ctx": options["ctx"], "threads": options["threads"]}
    limits |= {name: options[name] for name in ("cache_disk", "lora", "mmproj")}
    kinds = {n: options[n] for n in ("device", "device_weights")} | drafting(options)
    return {"cache_type": cache_type(options), **limits, **kinds}


def _serve_one(path: Path, keys: tuple[str, ...], options: dict[str, Any]) -> None:
    from ggq.runtime.model import load
    from ggq.runtime.server.hosting.single import OneModel
    from ggq.runtime.server.service import Service
    from ggq.runtime.server.slots import make_scheduler

    for name in ("models_dir", "memory", "keep_alive"):
        if options[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} is for many models: leave MODEL out")
    with load(weights(path, options), **_load_options(options)) as model:
        for warning in model.warnings:
            _note(f"warning: {printable(warning, 400)}")
        n_slots = options["parallel"]
        scheduler = make_scheduler(model, n_slots=n_slots, max_waiting=options["max_queue"])
        size = scheduler.engine.cache.nbytes / 2**20
        _note(
            f"{n_slots} answers of {scheduler.n_ctx} tokens each, {size:.0f} MiB of cache at most"
        )
        settings = _settings(options["alias"] or path.stem, keys, options)
        service = Service(model, scheduler, settings)
        scheduler.engine.warm_up()
        try:
            _listen(OneModel(service), options)
        finally:
            scheduler.close()  # before the weights go, its last step ends


def _serve_many(keys: tuple[str, ...], options: dict[str, Any]) -> None:
    from ggq.gguf.units import format_size, parse_size
    from ggq.runtime.cache.memory import free_memory
    from ggq.runtime.generation.drafting import drafters
    from ggq.runtime.server.hosting.catalogue import Catalogue
    from ggq.runtime.server.hosting.durations import parse_duration
    from ggq.runtime.server.hosting.many import ManyModels
    from ggq.runtime.server.hosting.opening import Opener

    if options["alias"]:
        raise UsageError("--alias names one model: say which, ggq serve MODEL --alias NAME")
    if options["lora"]:
        raise UsageError("--lora: adapters belong to one model: ggq serve MODEL --lora FILE")
    if options["answering"]["template"]:
        raise UsageError("--chat-template is for one model: say which, ggq serve MODEL ...")
    if options["mmproj"] not in (None, "off"):
        raise UsageError("--mmproj: it belongs to one model: ggq serve MODEL --mmproj FILE")
    if options["draft"] not in (None, "off", *drafters()):
        raise UsageError(
            "--draft: with many models ngram or off (those with heads of their own are drafted "
            "for by these unless told otherwise); for a model that drafts say which one to serve"
        )
    try:
        keep = parse_duration(options["keep_alive"] or "5m")
    except UsageError as error:
        raise UsageError(f"--keep-alive: {error}") from None
    budget = parse_size(options["memory"]) if options["memory"] else free_memory()
    catalogue = Catalogue(options["models_dir"])
    opener = Opener(
        _settings("", keys, options),
        _load_options(options),
        options["parallel"],
        options["max_queue"],
        lambda path: weights(path, options),
    )
    n, limit = len(catalogue.models()), format_size(budget) if budget else "any amount"
    _note(f"{n} models, loaded when they are asked for, {limit} of memory at most")
    if not n:
        _note("fetch one: ggq pull NAME (ggq list --available shows names)")
    _listen(ManyModels(catalogue, opener, keep, budget), options)


def _settings(name: str, keys: tuple[str, ...], options: dict[str, Any]) -> Any:
    from ggq.runtime.server.settings import Settings
    from ggq.runtime.server.start import LOOPBACK

    host = options["host"]
    if host not in LOOPBACK and not keys:
        _note(f"warning: everyone who reaches {printable(host)} can use this server: --api-key")
    names = (*LOOPBACK, *options["allow_host"]) if host in LOOPBACK else options["allow_host"]
    return Settings(
        model_id=name,
        sampling=options["sampling"],
        api_keys=keys,
        hosts=tuple(names),
        origins=options["cors_origin"],
        max_body=options["max_body"] << 20,
        fetch=_fetch(options),
        max_tokens=options["max_tokens"],
        prefix=options["prefix"],
        **options["answering"],
    )


def _fetch(options: dict[str, Any]) -> Any:
    """Return what gets pictures of URLs, None where none are to be fetched."""
    if not options["fetch_images"]:
        return None
    from ggq.runtime.server.fetching import fetch

    return fetch


def _listen(models: Any, options: dict[str, Any]) -> None:
    from ggq.runtime.server.start import serve

    address = options["host"], options["port"]
    serve(models, address, lambda url: _note(f"listening on {url}"), options["certificate"])


def _keys(options: dict[str, Any]) -> tuple[str, ...]:
    keys = list(options["api_key"])
    if options["api_key_file"]:
        try:
            lines = options["api_key_file"].read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{printable(options['api_key_file'])}: {reason(error)}") from None
        given = [line.strip() for line in lines if line.strip()]
        if not given:  # else everyone could ask
            raise UsageError(f"{printable(options['api_key_file'])}: holds no key")
        keys += given
    if not all(keys):
        raise UsageError("--api-key: is empty")
    return tuple(keys)


def _note(text: str) -> None:
    click.echo(text, err=True)
