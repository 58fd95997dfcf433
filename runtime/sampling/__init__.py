"""From logits to the next token: the parameters, the chain of samplers and its steps."""

from ggq.runtime.sampling.params import SamplingParams
from ggq.runtime.sampling.sampler import Sampler

__all__ = ["Sampler", "SamplingParams"]
