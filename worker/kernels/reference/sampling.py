"""Reference kernel: what the sampler asks of rows of logits."""

from collections.abc import Callable

import torch

Summary = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From logits [R, vocabulary] float32 to [R] int64 and [R] float32."""


def summarize(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The most likely token of each row, and log(sum(exp)): NaN without a valid distribution."""
    return logits.argmax(dim=-1), logits.logsumexp(dim=-1)
