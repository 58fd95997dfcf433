"""What training programs put before names of tensors, taken off again where it is clear.

Names alone decide: no model's tensors begin like this by themselves. It knows no architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ggq.errors import FormatError, printable

__all__ = ["unwrapped"]

_Tensor = TypeVar("_Tensor")
# Parts of names wherever they are: wrappers may sit around any module.
ANYWHERE = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpoints",
    "_forward_module.": "DeepSpeed",
}
# Beginnings that all names share; the pattern says what has to follow in one of them, so that
# `transformer.h.0` and `model.layers.0`, which models have themselves, stay as they are.
BEGINNINGS = {
    "base_model.model.": ("PEFT", r""),
    "module.": ("DataParallel", r""),
    "transformer.": ("a wrapper", r"(model|lm_head|layers\.\d+\.self_attn)\."),
    "model.": ("a wrapper", r"(model\.(layers|embed_tokens)|lm_head|transformer\.h)\."),
}


def unwrapped(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors by their names without such prefixes, and what was taken off in words.

    FormatError: two tensors would have one name.
    """
    names = {name: name for name in tensors}
    told = []
    for mark, maker in ANYWHERE.items():
        if any(mark in name for name in names.values()):
            names = {old: name.replace(mark, "") for old, name in names.items()}
            told.append(f"'{mark}' of {maker}")
    found = True
    while found:
        found = False
        for prefix, (maker, follows) in BEGINNINGS.items():
            now = list(names.values())
            if not now or not all(name.startswith(prefix) for name in now):
                continue
            if any(re.match(re.escape(prefix) + follows, name) for name in now):
                names = {old: name.removeprefix(prefix) for old, name in names.items()}
                told.append(f"'{prefix}' of {maker}")
                found = True
    if not told:
        return dict(tensors), []
    return _renamed(tensors, names), [f"names of tensors: {', '.join(told)} is taken off"]


def _renamed(tensors: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for old, name in names.items():
        if name in made or (name != old and name in tensors):
            what = f"the checkpoint holds {printable(name)} with a wrapper's prefix and without"
            raise FormatError(f"{what}: one of them is to be taken out")
        made[name] = replace(tensors[old], name=name)
    return made
