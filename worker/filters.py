"""Which tokens a filter leaves: min-p, top-k, top-p and typical-p over rows of logits.

Runs in the worker, inside the sampler. Top-p is there twice: ``top_p`` looks at what it has found
to do less, for which one has to wait on a GPU; ``top_p_unseen`` sorts everything. Each function
turns logits into the same logits with the others at -inf; what it does to a row depends on that row
alone, bit for bit. Those that sort whole rows take some rows at a time, so that what they need
beside the logits does not grow with the rows. Knows nothing of sequences or batches.
"""

from collections.abc import Callable

import torch

TopK = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""As ``top_k``; may be in place."""
TopP = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits [n, vocabulary] and p [n] float32 to the logits that are kept; may be in place."""

_PIECE_TOKENS = 1 << 22
"""Of the rows that are sorted at a time. Counted by hand, with the device's own room for sorting,
they take about 60 bytes a token: 2 GB for 256 rows of 128k tokens at once, 250 MB for these."""
_HEADS = (256, 4096)
_HEAD_SHARE = 4
"""PERF: top-p first looks at so many of the largest logits, if the vocabulary is larger by such a
factor; rows whose mass lies beyond go on. Of a row of 128k logits, finding the largest 256 takes
0.3 ms, sorting 13 ms."""


def min_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Keep tokens whose probability is at least p times that of the likeliest one; in place.

    ``logits`` [n, vocabulary], ``p`` [n] float32, > 0. Method: Nguyen et al., "Turning up the heat:
    min-p sampling for creative and coherent LLM outputs", 2024.
    """
    least = logits.amax(dim=-1, keepdim=True) + p.log()[:, None]
    return logits.masked_fill_(logits < least, -torch.inf)


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
    result = torch.full_like(logits, -torch.inf)
    open_rows = torch.arange(len(logits), device=logits.device)
    for width in _HEADS:
        if width * _HEAD_SHARE > logits.shape[1] or not len(open_rows):
            continue
        values, ids = _head(logits[open_rows], width)
        kept = _reaching(probabilities[open_rows].gather(1, ids), p[open_rows])
        # Settled: the cut lies inside the head, and so do all equals of the last token kept.
        settled = ~(kept & (values == values[:, -1:])).any(dim=-1)
        _keep(result, open_rows[settled], ids[settled], values[settled], kept[settled])
        open_rows = open_rows[~settled]
    if len(open_rows):
        values, ids = logits[open_rows].sort(dim=-1, descending=True, stable=True)
        kept = _reaching(probabilities[open_rows].gather(1, ids), p[open_rows])
        _keep(result, open_rows, ids, values, kept)
    return result


def top_p_unseen(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The same as ``top_p``, in shapes that depend on nothing but those of ``logits``."""
    return _in_pieces(_nucleus, logits, p)


def typical_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest to the entropy until their mass reaches p.

    ``logits`` [n, vocabulary], ``p`` [n] float32; equals of the last one stay. Method: Meister,
    Pimentel, Wiher, Cotterell, "Locally typical sampling", 2022.
    """
    return _in_pieces(_typical, logits, p)


def _in_pieces(keep: TopP, logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    rows = max(1, _PIECE_TOKENS // logits.shape[1])
    if len(logits) <= rows:
        return keep(logits, p)
    result = torch.empty_like(logits)
    for first in range(0, len(logits), rows):
        piece = slice(first, first + rows)
        result[piece] = keep(logits[piece], p[piece])
    return result


def _nucleus(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    probabilities = torch.softmax(logits, dim=-1)
    values, ids = logits.sort(dim=-1, descending=True, stable=True)
    kept = _reaching(probabilities.gather(1, ids), p)
    return torch.empty_like(logits).scatter_(1, ids, values.masked_fill_(~kept, -torch.inf))


def _typical(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
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


def _head(logits: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest logits and their ids in falling order, equal ones by id."""
    values, ids = logits.topk(width, dim=-1)
    ids, order = ids.sort(dim=-1)
    values, order = values.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)


def _keep(
    result: torch.Tensor,
    rows: torch.Tensor,
    ids: torch.Tensor,
    values: torch.Tensor,
    kept: torch.Tensor,
) -> None:
    """Write the kept values of these rows where they belong."""
    where = torch.nonzero(kept)
    picked = ids[where[:, 0], where[:, 1]]
    result[rows[where[:, 0]], picked] = values[where[:, 0], where[:, 1]]


def _reaching(falling: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """For probabilities in falling order: whether the mass before each is less than p."""
    before = falling.cumsum(dim=-1).roll(1, dims=-1)
    before[:, 0] = -1.0
    return before < p[:, None]
