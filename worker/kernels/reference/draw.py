"""Reference kernel: one token for each row of logits, greedy or drawn, and its log-probability."""

import torch

from worker import noise


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [n] int64 and logprobs [n] float32, of the logits over the temperature.

    logits [n, vocabulary] float32, processed but for the temperature [n] float32; 0 is greedy, with
    log-probabilities at temperature 1. seeds [n] int64, the bits of 64-bit seeds; positions [n]
    int64, the index of the token among the generated ones. NaN for rows without a valid
    distribution. The race of the sampler (Gumbel-max), multiplied by the temperature: so nothing
    overflows, however small that is, and 0 leaves no noise.
    """
    times = noise.exponentials(noise.split_seeds(seeds), positions, logits.shape[1])
    ids = (logits - temperature[:, None] * times.log_()).argmax(dim=-1)
    divisor = torch.where(temperature == 0, 1.0, temperature)[:, None]
    heated = (logits - logits.amax(dim=-1, keepdim=True)) / divisor
    chosen = heated.gather(1, ids[:, None])[:, 0]
    return ids, chosen - heated.logsumexp(dim=-1)
