"""Watermarks: after each token a part of the vocabulary is green, and its logits are raised.

Runs in the worker, inside the sampler. Whoever knows the rule counts green tokens in a text and
sees that there are too many. The rule is that of Kirchenbauer et al., "A Watermark for Large
Language Models", 2023, algorithm 2, in the form that Text Generation Inference and transformers'
``WatermarkDetector`` ("lefthash") share: torch's generator, seeded with 15485863 x the last token's
id, shuffles all ids (``torch.randperm``), and the first ⌊gamma x vocabulary⌋ are green. The
generator is always the CPU's, as another device's shuffles otherwise.

So a list is a function of the last id and the vocabulary alone, and nothing is kept of sequences.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from common.errors import StartupError
from worker.masks import spread, table_of_bytes
from worker.transfers import send

KEY = 15485863
"""The millionth prime: the published key, which detectors assume."""
_KEPT_BYTES = 32 << 20
"""PERF: shuffling 128,256 ids takes 0.6 ms, finding their list again 3 µs; a list of 16 KiB each,
the latest 2,000 are kept, and texts consist of few words."""

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rule:
    """How strong a watermark is."""

    gamma: float
    """Share of the vocabulary that is green; between 0 and 1."""
    delta: float
    """What is added to the logits of green tokens."""


USUAL = Rule(gamma=0.5, delta=2.0)
"""Text Generation Inference's."""


def count_green(vocabulary: int, gamma: float) -> int:
    """How many tokens are green: never all of them. Raises StartupError if none is."""
    count = int(vocabulary * gamma)
    if not count:
        raise StartupError(
            f"--watermark-gamma {gamma} favours none of the model's {vocabulary} tokens, which"
            " marks nothing: 0.5 and 0.25 are usual"
        )
    return count


class GreenLists:
    """The green tokens after each token, as bits: those used latest are kept."""

    def __init__(self, vocabulary: int, gamma: float, kept_bytes: int = _KEPT_BYTES) -> None:
        self._vocabulary = vocabulary
        self._green = count_green(vocabulary, gamma)
        self._width = -(-vocabulary // 32)
        self._most = max(1, kept_bytes // (4 * self._width))
        self._generator = torch.Generator()
        self._lists: OrderedDict[int, Bits] = OrderedDict()

    def after(self, last_ids: Sequence[int]) -> torch.Tensor:
        """[n, words] int32 on the host: bit t % 32 of word t // 32 is set if token t is green."""
        bits = np.empty((len(last_ids), 4 * self._width), dtype=np.uint8)
        for row, last_id in zip(bits, last_ids, strict=True):
            row[:] = self._find(last_id)
        return torch.from_numpy(bits.view(np.int32))

    def _find(self, last_id: int) -> Bits:
        kept = self._lists.get(last_id)
        if kept is not None:
            self._lists.move_to_end(last_id)
            return kept
        made = self._lists[last_id] = self._make(last_id)
        if len(self._lists) > self._most:
            self._lists.popitem(last=False)
        return made

    def _make(self, last_id: int) -> Bits:
        self._generator.manual_seed(KEY * last_id)
        shuffled = torch.randperm(self._vocabulary, generator=self._generator)
        green = np.zeros(32 * self._width, dtype=np.bool_)
        green[shuffled[: self._green].numpy()] = True
        return np.packbits(green, bitorder="little")


class Favour:
    """Raises the logits of green tokens."""

    def __init__(self, vocabulary: int, device: torch.device, rule: Rule) -> None:
        self._device = device
        self._delta = rule.delta
        self._lists = GreenLists(vocabulary, rule.gamma)
        self._table = table_of_bytes(device)

    def __call__(self, logits: torch.Tensor, last_ids: Sequence[int]) -> torch.Tensor:
        """Change ``logits`` ([n, vocabulary]) in place, each row by the token before it."""
        lists = send(self._lists.after(last_ids), self._device)
        return logits.add_(spread(lists, self._table, logits.shape[1]), alpha=self._delta)
