"""How far long work is: a bar on a terminal and in a notebook, else a line now and then."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from ggq import shipped
from ggq.errors import printable

__all__ = ["Progress", "progress_bar", "progress_when_told", "show_compiling"]

Progress = Callable[[int, int, str], None]
EVERY = 10.0  # seconds between two lines at least: short work is silent


@contextmanager
def progress_bar(quiet: bool, live: bool = True) -> Iterator[Progress | None]:
    """Yield what is told (done, total, name); None where ``quiet``.

    ``live`` False: a bar moves only when it is told something, for work that is timed.
    """
    if quiet or sys.stderr is None:
        yield None
    elif sys.stderr.isatty():
        with _bar(live) as bar:
            yield _Bar(bar, live)
    elif in_notebook():
        with _Cell() as cell:
            yield cell
    else:
        yield _Lines()


@contextmanager
def progress_when_told(quiet: bool) -> Iterator[Progress]:
    """Yield what is told (done, total, name); the bar is drawn from then on, not before."""
    with ExitStack() as stack:
        bars: list[Progress | None] = []

        def tell(done: int, total: int, name: str) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_bar(quiet)))
            if bars[0]:
                bars[0](done, total, name)

        yield tell


def in_notebook() -> bool:
    """Tell whether an IPython kernel runs this: a notebook, whose stderr is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class _Cell:
    """A bar in a notebook's cell, by tqdm: a widget where there are some, else text."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Cell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is; what is told next begins another."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, done: int, total: int, name: str) -> None:
        if self._bar is None:
            self._bar = _tqdm(total)
        self._bar.total, self._bar.n = total, done
        self._bar.set_description(printable(name, 40))  # and draws


def _tqdm(total: int) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets
        from tqdm.auto import tqdm
    return tqdm(total=total, bar_format="{l_bar}{bar}| {elapsed} < {remaining}")


_compiling = _Cell()  # in a notebook


def _bar(live: bool) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=live)


class _Bar:
    def __init__(self, bar: Any, live: bool) -> None:
        self._bar, self._task, self._live = bar, bar.add_task("", total=None), live

    def __call__(self, done: int, total: int, name: str) -> None:
        facts = {"completed": done, "total": total, "description": printable(name, 40)}
        self._bar.update(self._task, **facts, refresh=not self._live)


class _Lines:
    """A line with the share that is done and the time that is left, at most one a percent."""

    def __init__(self) -> None:
        self._told, self._percent = time.monotonic(), 0
        self._since: tuple[float, int] | None = None  # when there was how much done at first

    def __call__(self, done: int, total: int, name: str) -> None:
        now, percent = time.monotonic(), 100 * done // max(total, 1)
        if self._since is None or percent < self._percent:  # other work
            self._since, self._percent = (now, done), percent
            return
        if now - self._told < EVERY or percent == self._percent:
            return
        self._told, self._percent = now, percent
        started, first = self._since
        left = (now - started) * (total - done) / max(done - first, 1)
        text = f"{percent:3} %, {_duration(left)} left"
        click.echo(f"{text}: {printable(name, 60)}" if name else text, err=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def show_compiling(done: int, total: int) -> None:
    """Say on stderr how far compiling is: a line that changes on a terminal, else one line."""
    text = "compiling kernels for this processor, once"
    if sys.stderr is None:
        return
    if done == 0:
        _tell_unused_kernels()
    if in_notebook():
        _compiling(done, total, text)
        if done >= total:
            _compiling.close()
        return
    # A progress bar puts something else in the place of stderr, which is no place for half lines.
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr.isatty():
        line = f"{text}: {done} of {total}"
        sys.stderr.write(f"\r{line}" if done < total else "\r" + " " * len(line) + "\r")
        sys.stderr.flush()
    elif done == 0:
        click.echo(f"{text} ...", err=True)


def _tell_unused_kernels() -> None:
    """Say why kernels that came with ggq are not used, where they should be."""
    if problem := shipped.problem():
        click.echo(f"ggq: {printable(problem)}: not used", err=True)
