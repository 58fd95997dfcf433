"""Help of commands with many options: in groups with a heading each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

__all__ = ["GroupedCommand"]


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings.

    ``groups``: heading to the options' names, in the order in which they are shown; those that none
    of them names come last, under "Options".
    """

    def __init__(
        self, *given: Any, groups: Mapping[str, tuple[str, ...]] | None = None, **options: Any
    ) -> None:
        super().__init__(*given, **options)
        self._groups = groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section for each group."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {p.name: p.get_help_record(ctx) for p in options}
        shown = {name: record for name, record in records.items() if record is not None}
        width = max(len(flags) for flags, _ in shown.values()) if shown else 0
        for heading, names in self._groups.items():
            rows = [shown.pop(name) for name in names if name in shown]
            if rows:
                _section(formatter, heading, rows, width)
        if shown:
            _section(formatter, "Options", list(shown.values()), width)


def _section(
    formatter: click.HelpFormatter, heading: str, rows: list[tuple[str, str]], width: int
) -> None:
    with formatter.section(heading):
        formatter.write_dl([(flags.ljust(min(width, 30)), told) for flags, told in rows])
