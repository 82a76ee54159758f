"""Reference kernel: which rows of the paged KV cache a step writes and reads.

The cache of a layer is [2, blocks, kv heads, 16, head_dim]: keys, then values. Seen as
[-1, head_dim] its rows are the vectors of single tokens, seen as [-1, 16 · head_dim] those of whole
blocks (of one head). Row numbers are the same for all layers: computed once per step.
"""

import torch

from common.messages import BLOCK_TOKENS


class CacheRows:
    """Row numbers in caches with so many KV heads."""

    def __init__(self, kv_heads: int, device: torch.device) -> None:
        self._kv_heads = kv_heads
        self._heads = torch.arange(kv_heads, device=device)
        self._kinds = torch.arange(2, device=device)[:, None]

    def of_blocks(self, tables: torch.Tensor, blocks: int) -> torch.Tensor:
        """Rows of whole blocks: tables [n, b] to [2 · n · kv heads · b], all int64.

        Row (kind · blocks + block) · kv heads + head.
        """
        first = self._kinds * (blocks * self._kv_heads) + self._heads  # [2, kv heads]
        rows = first[:, None, :, None] + (tables * self._kv_heads)[None, :, None, :]
        return rows.flatten()

    def of_tokens(self, slots: torch.Tensor, blocks: int) -> torch.Tensor:
        """Rows of single tokens: slots [T] to [T · 2 · kv heads], all int64.

        Row ((kind · blocks + block) · kv heads + head) · 16 + offset; slot = 16 · block + offset.
        """
        first = (self._kinds * (blocks * self._kv_heads) + self._heads) * BLOCK_TOKENS
        offset = slots % BLOCK_TOKENS
        within = (slots - offset).mul_(self._kv_heads).add_(offset)
        return (within[:, None, None] + first).flatten()
