"""Which tokens a filter leaves: top-k, top-p and typical-p over rows of logits.

Runs in the worker, inside the sampler. Each function turns logits into the same logits with the
others at -inf; what it does to a row depends on that row alone, bit for bit. Knows nothing of
sequences or batches.
"""

import torch

_HEAD = 1024
"""PERF: with a large vocabulary, top-p first looks at so many of the largest (0.8 ms a row of 128k
logits where sorting it takes 15 ms); rows whose mass lies beyond are sorted."""


def top_k(logits: torch.Tensor, k: torch.Tensor, largest: int) -> torch.Tensor:
    """Keep logits that are at least the k-th largest of their row; ties of it stay.

    ``logits`` [n, vocabulary], ``k`` [n] int64, 1 … ``largest`` <= vocabulary.
    """
    head = logits.topk(largest, dim=-1).values
    threshold = head.gather(1, k[:, None] - 1)
    return logits.masked_fill(logits < threshold, -torch.inf)


def top_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Keep the fewest most likely tokens whose mass reaches p, at least one.

    ``logits`` [n, vocabulary], ``p`` [n] float32. A token stays if those before it, in falling
    order and equal ones by id, have less mass than p.
    """
    probabilities = torch.softmax(logits, dim=-1)
    vocabulary = logits.shape[1]
    if vocabulary <= _HEAD:
        return logits.masked_fill(~_whole_top_p(logits, probabilities, p), -torch.inf)
    keep = torch.zeros_like(logits, dtype=torch.bool)
    values, ids = logits.topk(_HEAD, dim=-1)
    last = values[:, -1:].clone()
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order)
    kept = _reaching(probabilities.gather(1, ids), p)
    # Settled: the cut lies inside the head, and so do all equals of the last token kept.
    settled = ~(kept & (values == last)).any(dim=-1)
    keep.scatter_(1, ids, kept)
    rest = torch.nonzero(~settled)[:, 0]
    if len(rest):
        keep[rest] = _whole_top_p(logits[rest], probabilities[rest], p[rest])
    return logits.masked_fill(~keep, -torch.inf)


def typical_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the entropy until their mass reaches p.

    ``logits`` [n, vocabulary], ``p`` [n] float32; equals of the last one stay. Method: Meister,
    Pimentel, Wiher, Cotterell, "Locally typical sampling", 2022.
    """
    surprise = -torch.log_softmax(logits, dim=-1)
    probabilities = torch.exp(-surprise)
    terms = torch.where(probabilities > 0, surprise * probabilities, 0.0)
    # A running sum, not sum(): that splits a single row among the threads and rounds differently.
    entropy = terms.cumsum(dim=-1)[:, -1:]
    distance = (surprise - entropy).abs_()
    ordered, order = distance.sort(dim=-1, stable=True)
    mass = probabilities.gather(1, order).cumsum(dim=-1)
    last = (mass < p[:, None]).sum(dim=-1, keepdim=True).clamp_(max=logits.shape[1] - 1)
    return logits.masked_fill(distance > ordered.gather(1, last), -torch.inf)


def _whole_top_p(
    logits: torch.Tensor, probabilities: torch.Tensor, p: torch.Tensor
) -> torch.Tensor:
    ids = logits.sort(dim=-1, descending=True, stable=True).indices
    kept = _reaching(probabilities.gather(1, ids), p)
    return torch.zeros_like(kept).scatter_(1, ids, kept)


def _reaching(falling: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """For probabilities in falling order: whether the mass before each is less than p."""
    before = falling.cumsum(dim=-1).roll(1, dims=-1)
    before[:, 0] = -1.0
    return before < p[:, None]
