"""Memory with named fields, declared once: compiled functions read fields, recorders fill them.

A field is one 64-bit slot. In a kernel a block is its address with attributes: ``a.width`` loads,
``a.width = n`` stores. It knows no kernel.
"""

import struct
from functools import cached_property
from typing import Any

__all__ = ["FLOAT", "INT", "ROWS", "Struct"]

INT, FLOAT, ROWS = "int", "float", "rows"


class Struct:
    """Fields by name in the order of their slots; ``base``: the fields that come first.

    A field's kind: ``INT``, an int64 (a number or an address); ``FLOAT``, a float32 in the slot's
    low half; ``ROWS``, two slots: the address of rows and, as NAME_stride, the bytes between them.
    """

    def __init__(self, name: str, base: "Struct | None" = None, **fields: str) -> None:
        self.fields: dict[str, str] = {**(base.fields if base else {}), **fields}
        self.slots: dict[str, str] = {}
        for field, kind in self.fields.items():
            self.slots[field] = FLOAT if kind == FLOAT else INT
            if kind == ROWS:
                self.slots[f"{field}_stride"] = INT
        self.nbytes = 8 * len(self.slots)
        self.name = f"{name}{tuple(self.slots.items())}"

    def offset(self, slot: str) -> int:
        """Return where a slot lies, in bytes."""
        return 8 * list(self.slots).index(slot)

    def filled(self, **values: Any) -> list[Any]:
        """Return what the slots hold. None is 0; ROWS take a buffer or (address, stride)."""
        if missing := self.fields.keys() ^ values.keys():
            raise TypeError(f"fields that are missing or unknown: {', '.join(sorted(missing))}")
        found: list[Any] = []
        for field, kind in self.fields.items():
            value = values[field]
            if kind == ROWS:
                pair = value if isinstance(value, tuple) else (value, value and value.stride)
                found += [part or 0 for part in pair]
            elif kind == FLOAT:
                found += struct.unpack("<i", struct.pack("<f", value))
            else:
                found.append(value or 0)
        return found

    @cached_property
    def kind(self) -> Any:
        """The type that a block of these fields has for numba."""
        from ggq.simd.blocks import Block

        return Block(self)

    @property
    def _numba_type_(self) -> Any:
        from numba.core import types

        return types.TypeRef(self.kind)

    def __repr__(self) -> str:
        return self.name
