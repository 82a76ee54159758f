"""The draw on a CPU: a race (Gumbel-max) that each token enters with its probability.

Runs in the worker, inside the sampler. Each token's exponential noise is divided by its
probability, the smallest wins. Noise is made only for tokens that the filters have left, and for
rows that are drawn; whoever cannot look which these are without waiting takes the reference kernel,
which draws the same. Knows nothing of sequences.
"""

from collections.abc import Callable

import torch

from worker import noise
from worker.kernels.reference.sampling import Summary, summarize

Draw = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]
]
"""As ``worker.kernels.reference.draw`` has it: logits, temperatures (0: the most likely token),
seeds, positions to ids and log-probabilities."""

_SPARSE_FACTOR = 6
"""PERF: noise for one chosen token costs about what it costs for so many in a row."""


class SparseDraw:
    """As ``Draw``, for temperatures 0 and 1.

    PERF: remembers which rows the latest temperatures draw; they are the same tensor as long as the
    same rows step together.
    """

    def __init__(self, summarize: Summary = summarize) -> None:
        self._summarize = summarize
        self._temperature = torch.empty(0)
        self._drawn: torch.Tensor | None = None

    def __call__(
        self,
        logits: torch.Tensor,
        temperature: torch.Tensor,
        seeds: torch.Tensor,
        positions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``Draw``."""
        ids, log_sums = self._summarize(logits)
        if temperature is not self._temperature:
            drawn = temperature.nonzero()[:, 0]
            self._temperature, self._drawn = temperature, drawn if drawn.numel() else None
        if self._drawn is not None:
            drawn = self._drawn
            if drawn.numel() == ids.numel():
                ids = _race(logits, seeds, positions)
            else:
                ids[drawn] = _race(logits[drawn], seeds[drawn], positions[drawn])
        return ids, logits.gather(1, ids[:, None])[:, 0] - log_sums


def _race(logits: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The winners: [n] int64."""
    keys = noise.split_seeds(seeds)
    where = torch.nonzero(logits > -torch.inf)
    if len(where) * _SPARSE_FACTOR >= logits.numel():
        times = noise.exponentials(keys, positions, logits.shape[1])
        return (logits - times.log_()).argmax(dim=-1)
    row, token = where[:, 0], where[:, 1]
    times = noise.exponentials_at((keys[0][row], keys[1][row]), positions[row], token)
    race = torch.full_like(logits, -torch.inf)
    race[row, token] = logits[row, token] - times.log_()
    return race.argmax(dim=-1)
