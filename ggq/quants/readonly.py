"""Types that ggq runs but does not write."""

import numpy as np

from ggq.errors import UsageError
from ggq.quants.base import ValuesType


class ReadOnlyType(ValuesType):
    """A type with a decoder alone."""

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        raise UsageError(f"{self.name}: ggq reads this type but does not write it")
