"""Drives a model as the engine does, in a plain loop: blocks, step inputs, greedy generation."""

import random
from dataclasses import dataclass, field, replace

import torch

from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.models.model import Model

_CPU = torch.device("cpu")


@dataclass
class Running:
    """One sequence."""

    ids: list[int]
    computed: int = 0
    blocks: list[int] = field(default_factory=list)


class Paged:
    """A model, a cache full of NaN, and blocks handed out in random order."""

    def __init__(
        self, model: Model, blocks: int = 64, seed: int = 0, device: torch.device = _CPU
    ) -> None:
        self.model = model
        self.device = device
        self.dtype = model.configuration.dtype
        self.cache = model.make_cache(model.configuration, blocks, device)
        for layer in self.cache.layers:
            layer.fill_(float("nan"))
        self.free = list(range(1, blocks))
        random.Random(seed).shuffle(self.free)

    def start(self, ids: list[int]) -> Running:
        return Running(list(ids))

    def finish(self, sequence: Running) -> None:
        """Give the blocks back, at once to be reused."""
        self.free.extend(sequence.blocks)

    def step(self, parts: list[tuple[Running, int]], rows: str = "last") -> torch.Tensor:
        """One forward pass over so many tokens of each sequence.

        Logits of the last token of each (in their order) or of all tokens. Sequences that decode
        come first, as in the engine: parts of one token, after the first.
        """
        inputs = moved(self.inputs(parts, rows), self.device)
        with torch.inference_mode():
            hidden = self.model.forward(inputs, self.cache)
            logits = self.model.logits(hidden)
        for sequence, count in parts:
            sequence.computed += count
        assert hidden.shape == (len(inputs.logit_rows), self.model.configuration.hidden_size)
        assert logits.dtype == torch.float32
        return logits.clone()

    def inputs(self, parts: list[tuple[Running, int]], rows: str) -> StepInputs:
        decoding = 0
        for sequence, count in parts:
            if count != 1 or not sequence.computed:
                break
            decoding += 1
        for sequence, count in parts:
            while len(sequence.blocks) * BLOCK_TOKENS < sequence.computed + count:
                sequence.blocks.append(self.free.pop())
        lengths = [sequence.computed + count for sequence, count in parts]
        width = max(len(sequence.blocks) for sequence, _ in parts) + 1
        positions = [
            range(sequence.computed, sequence.computed + count) for sequence, count in parts
        ]
        ends = torch.tensor([count for _, count in parts]).cumsum(0) - 1
        return StepInputs(
            token_ids=torch.tensor(
                [
                    sequence.ids[position]
                    for (sequence, _), own in zip(parts, positions, strict=True)
                    for position in own
                ]
            ),
            positions=torch.tensor([position for own in positions for position in own]),
            slots=torch.tensor(
                [
                    sequence.blocks[position // BLOCK_TOKENS] * BLOCK_TOKENS
                    + position % BLOCK_TOKENS
                    for (sequence, _), own in zip(parts, positions, strict=True)
                    for position in own
                ]
            ),
            block_tables=torch.tensor(
                [sequence.blocks + [0] * (width - len(sequence.blocks)) for sequence, _ in parts]
            ),
            lengths=torch.tensor(lengths),
            lengths_host=tuple(lengths),
            query_lengths_host=tuple(count for _, count in parts),
            decode_sequences=decoding,
            logit_rows=ends if rows == "last" else torch.arange(int(ends[-1]) + 1),
        )

    def generate(self, ids: list[int], tokens: int, chunk: int = 1_000_000) -> list[int]:
        """The ``tokens`` most likely tokens, one after another."""
        sequence = self.start(ids)
        while sequence.computed < len(sequence.ids):
            logits = self.step([(sequence, min(chunk, len(sequence.ids) - sequence.computed))])
        for _ in range(tokens - 1):
            sequence.ids.append(int(logits.argmax()))
            logits = self.step([(sequence, 1)])
        self.finish(sequence)
        return [*sequence.ids[len(ids) :], int(logits.argmax())]


def moved(inputs: StepInputs, device: torch.device) -> StepInputs:
    """The same, on a device."""
    values = {name: getattr(inputs, name) for name in inputs.__dataclass_fields__}
    tensors = {
        name: value.to(device) for name, value in values.items() if isinstance(value, torch.Tensor)
    }
    return replace(inputs, **tensors)
