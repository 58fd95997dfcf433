"""Types that ggq runs but does not write: their encoders are long searches of their own."""

from abc import abstractmethod

import numpy as np

from ggq.errors import UsageError
from ggq.quants.base import QuantType


class ReadOnlyType(QuantType):
    """A type with a decoder alone."""

    @abstractmethod
    def values(self, blocks: np.ndarray) -> np.ndarray:
        """Return the float32 values in any shape whose order is that of the rows."""

    def dequantize(self, blocks: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.values(blocks).reshape(len(blocks), -1)

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        raise UsageError(f"{self.name}: ggq reads this type but does not write it")
