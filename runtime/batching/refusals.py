"""Why a scheduler takes no request."""

from __future__ import annotations

from ggq.errors import UsageError

__all__ = ["ClosedError", "QueueFullError"]


class QueueFullError(UsageError):
    """Too many requests wait; ``retry_after`` seconds is when it is worth trying again."""

    def __init__(self, n_waiting: int, retry_after: int) -> None:
        """Take how many wait and the seconds to wait."""
        super().__init__(f"{n_waiting} requests are waiting: try again in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(UsageError):
    """Nothing is answered any more."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")
