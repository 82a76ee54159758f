"""The draw: a race (Gumbel-max) that each token enters with its probability.

Runs in the worker, inside the sampler. Each token's exponential noise is divided by its
probability, the smallest wins. Twice: ``sparse`` makes noise only for tokens that the filters have
left, but has to look which these are; ``dense`` makes it for all and looks at nothing. Both draw
the same. Knows nothing of sequences.
"""

from collections.abc import Callable

import torch

from worker import noise

Race = Callable[[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor], torch.Tensor]
"""From logits [n, vocabulary] float32, keys (as of ``noise.split_seeds``) and positions
[n] int64 to the winners, [n] int64."""

_SPARSE_FACTOR = 6
"""PERF: noise for one chosen token costs about what it costs for so many in a row."""


def dense(
    logits: torch.Tensor, keys: tuple[torch.Tensor, torch.Tensor], positions: torch.Tensor
) -> torch.Tensor:
    """As ``Race``."""
    times = noise.exponentials(keys, positions, logits.shape[1])
    return (logits - times.log_()).argmax(dim=-1)


def sparse(
    logits: torch.Tensor, keys: tuple[torch.Tensor, torch.Tensor], positions: torch.Tensor
) -> torch.Tensor:
    """As ``Race``."""
    where = torch.nonzero(logits > -torch.inf)
    if len(where) * _SPARSE_FACTOR >= logits.numel():
        return dense(logits, keys, positions)
    row, token = where[:, 0], where[:, 1]
    times = noise.exponentials_at((keys[0][row], keys[1][row]), positions[row], token)
    race = torch.full_like(logits, -torch.inf)
    race[row, token] = logits[row, token] - times.log_()
    return race.argmax(dim=-1)
