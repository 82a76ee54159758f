"""A model that asks for much memory when it reads a long prompt."""

import torch

from tests.worker.driver import HistoryModel

PER_TOKEN_BYTES = 64 << 20
ROOM_BYTES = 1 << 30
"""So much it may have beside what it has begun with."""
GREEDY_TOKEN = 9


class Hungry(HistoryModel):
    def forward(self, inputs, cache):
        longest = max(inputs.query_lengths_host)
        if longest > 1:
            torch.empty(longest * PER_TOKEN_BYTES, dtype=torch.uint8)
        return super().forward(inputs, cache)
