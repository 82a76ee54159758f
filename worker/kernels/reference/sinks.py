"""Reference kernel: paged attention with sinks.

A sink is a logit of a head, learned, that takes part in its softmax and brings no value: a head may
attend to nothing (gpt-oss; Xiao et al. 2023 for the idea).
"""

import torch

from worker.kernels.reference.attention import AttentionShape, PagedAttention
from worker.kernels.reference.planning import DecodeGroup

_QUERIES = 256
"""Scores of a chunk are computed for so many queries at a time."""


class SinkAttention(PagedAttention):
    """Of one layer: the sinks are its weights."""

    def __init__(
        self,
        shape: AttentionShape,
        sinks: torch.Tensor,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """``sinks`` [heads]."""
        super().__init__(shape, device=device, dtype=dtype)
        if shape.cap is not None:
            raise ValueError("attention with sinks and a cap is not known of any model")
        self._sinks = sinks.detach().float().view(shape.kv_heads, -1, 1)

    def _decode(
        self, queries: torch.Tensor, cache: torch.Tensor, group: DecodeGroup, scale: float
    ) -> torch.Tensor:
        count = len(queries)
        pairs = count * self._kv_heads
        keys, values = self._gather(cache, group.gather, pairs)
        grouped = queries.reshape(pairs, -1, self._head_dim)
        scores = torch.baddbmm(group.mask, grouped, keys.transpose(1, 2), alpha=scale)
        weights = self._weights(scores, self._sinks.repeat(count, 1, 1))
        return torch.bmm(weights.to(values.dtype), values).view(count, -1)

    def _sdpa(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        seen: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """As ``PagedAttention._sdpa``, a few queries at a time."""
        parts = []
        sinks = self._sinks[:, :, None]  # [kv heads, queries per KV head, 1, 1]
        for first in range(0, queries.shape[2], _QUERIES):
            some = queries[:, :, first : first + _QUERIES]
            count = keys.shape[1] if seen is not None else first + some.shape[2]
            if seen is None:
                rows = torch.arange(first, count, device=keys.device)[:, None]
                hidden = torch.arange(count, device=keys.device) > rows
            else:
                hidden = ~seen[first : first + _QUERIES]
            scores = some @ keys[:, None, :count].transpose(2, 3) * scale
            weights = self._weights(scores.masked_fill_(hidden, float("-inf")), sinks)
            parts.append(weights.to(values.dtype) @ values[:, None, :count])
        return torch.cat(parts, dim=2)

    def _weights(self, scores: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
        """Softmax over [..., queries, keys] and the sinks [..., queries or 1, 1]; float32."""
        sinks = sinks.expand(*scores.shape[:-1], 1)
        return torch.softmax(torch.cat((scores.float(), sinks), dim=-1), dim=-1)[..., :-1]
