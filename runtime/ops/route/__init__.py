"""route(logits, spec) -> for each token the experts it goes to and their weights.

logits (n_tokens, n_expert); spec: models.base.Routing. Kinds of gating: "softmax" of all logits
(arXiv 2101.03961), "softmax_chosen": of the chosen ones only (arXiv 2401.04088), "sigmoid" (arXiv
2412.19437). ``bias`` names values that are added for choosing only; of ``n_group`` groups those
``n_group_used`` with the highest sums of their two best are chosen from. Equal scores: the lower
expert. ``normalize`` makes the chosen weights sum to 1; ``scale`` multiplies them, and so does each
expert's value in the tensor ``scales``. The result is
for `experts` and `combine`.
"""

__all__ = ["TINY"]

TINY = 1e-20  # added to sums of weights, as in DeepSeek's reference code
