"""Checkpoints that are quantized already: every file here that declares ``FORMAT`` reads a method.

`decoded` recognises the method from config.json and turns the pieces of each weight into one
tensor that is decoded as it is read; nothing here knows an architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ggq.converters.formats.base import Format, Pieces, TensorLike
from ggq.converters.formats.mlx import METHOD, is_mlx
from ggq.errors import FormatError, ModelError, printable

__all__ = ["decoded", "methods", "quantization"]

PLACES = ("quantization_config", "compression_config")


@cache
def _registry() -> dict[str, Format]:
    modules = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    formats = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {method: found for found in formats for method in found.methods}


def methods() -> list[str]:
    """Return the values of ``quant_method`` that can be read."""
    return sorted(_registry())


def quantization(
    config: Mapping[str, Any], read: Callable[[str], Mapping[str, Any]] = lambda name: {}
) -> tuple[str, dict[str, Any]] | None:
    """Return (method, settings) of a model, None where the weights are plain.

    ``read(name)`` gives a JSON file beside config.json, {} where there is none: old checkpoints
    have the settings there. FormatError, ModelError: no object, or a method that is not read.
    """
    text = config.get("text_config")
    if is_mlx(config.get("quantization")):
        settings = dict(config["quantization"])
        _check(_registry()[METHOD], settings)
        return METHOD, settings
    for place in (config, text if isinstance(text, Mapping) else {}):
        for key in PLACES:
            if place.get(key) is not None:
                return _recognised(key, place[key])
    for method, found in _registry().items():
        own = dict(read(found.beside)) if found.beside else {}
        if own:
            _check(found, own)
            return method, own
    return None


def _recognised(key: str, settings: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(settings, Mapping):
        raise FormatError(f"config.json: {key} is not an object")
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        method = "bitsandbytes"  # as its first versions saved it
    if method is None and _of_modelopt(settings):
        method = "modelopt"
    if not isinstance(method, str) or method not in _registry():
        known = ", ".join(methods())
        raise ModelError(
            f"config.json: quantization method {printable(repr(method))} is not supported, "
            f"only {known}"
        )
    _check(_registry()[method], settings)
    return method, dict(settings)


def _of_modelopt(settings: Mapping[str, Any]) -> bool:
    """Tell whether settings without a method are NVIDIA's: some of its exports name none."""
    producer = settings.get("producer")
    named = isinstance(producer, Mapping) and producer.get("name") == "modelopt"
    return named or "quant_algo" in settings


def _check(found: Format, settings: Mapping[str, Any]) -> None:
    """Refuse settings that this format's file says it does not read."""
    check = getattr(found, "check", None)
    if check is not None:
        check(settings)


def decoded(
    tensors: Mapping[str, TensorLike],
    found: tuple[str, Mapping[str, Any]] | None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, TensorLike]:
    """Return the tensors with each quantized weight in one piece; ``found``: see `quantization`.

    ``metadata``: what the files of the tensors say of themselves.

    Scales, zeros and indices that belong to a weight are gone from the result; one that belongs to
    none is still there. FormatError or ModelError name the tensor that is missing or malformed.
    """
    pieces = Pieces(tensors, metadata or {})
    if found is not None:
        method, settings = found
        _registry()[method].decode(pieces, settings)
    return pieces.tensors
