"""Compares two GGUF files key by key and tensor by tensor."""

import numpy as np


def differences(got, want):
    """Return what differs between two files, provenance keys excepted."""
    found = []
    for key in sorted({*got.metadata, *want.metadata}):
        if not key.startswith("ggq."):
            sides = [
                (f.value_type(key), plain(f.metadata[key]))
                for f in (got, want)
                if key in f.metadata
            ]
            if len(sides) < 2 or sides[0] != sides[1]:
                found.append(key)
    for name in sorted({*got.tensors, *want.tensors}):
        infos = [f.tensors.get(name) for f in (got, want)]
        if (
            None in infos
            or infos[0].shape != infos[1].shape
            or infos[0].type_id != infos[1].type_id
        ) or not np.array_equal(got.data(name), want.data(name)):
            found.append(name)
    return found


def plain(value):
    return value.tolist() if hasattr(value, "tolist") else value
