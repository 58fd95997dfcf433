"""Types that the commands' decorators share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Command"]

Command = TypeVar("Command", bound=Callable[..., Any])  # what click made, or makes, a command of
