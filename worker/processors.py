"""What changes logits before the draw, each processor over just the rows that ask for it.

Runs in the worker, inside the sampler. One class per processor of ``common.sampling``; each is
built for the rows of a batch (or not at all, if none asks) and changes their logits in place.
``build`` keeps the order in which they run. Knows nothing of the draw.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from common.sampling import SamplingParameters
from worker import filters
from worker.counts import TokenCounts
from worker.filters import TopP
from worker.masks import Forbid
from worker.transfers import Transfers

NO_ROW = -1


@dataclass(slots=True, eq=False)
class SamplingRow:
    """What the sampler keeps of one sequence."""

    parameters: SamplingParameters
    stop_token_ids: list[int]
    """Those inside the vocabulary."""
    guided: bool = False
    """Whether it follows a grammar."""
    seen: int = NO_ROW
    """Row of the counts of prompt and output, if some parameter needs them."""
    output: int = NO_ROW
    """Row of the counts of the output alone, if some parameter needs them."""


@dataclass(frozen=True, slots=True)
class Step:
    """What differs from step to step."""

    positions: torch.Tensor
    """[R] int64, index of each row's next token among the generated ones."""
    lengths: torch.Tensor
    """[R] int64, known tokens of each row's sequence, prompt and output."""
    seen: TokenCounts
    output: TokenCounts
    top_p: TopP
    masks: torch.Tensor | None = None
    """[guided rows, words] int32, the tokens that each one's grammar allows; None without any."""


class Processor(ABC):
    """Changes the logits of the rows that ask for it: most often all rows, or none."""

    wanted: "ClassVar[staticmethod[[SamplingParameters], bool]]"
    """Tells whether a sequence with these parameters asks for it."""

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        numbers = [number for number, row in enumerate(rows) if self.asked(row)]
        self._rows = [rows[number] for number in numbers]
        self._transfers = transfers
        everywhere = len(self._rows) == len(rows)
        self._index = None if everywhere else transfers.integers(numbers)

    @classmethod
    def asked(cls, row: SamplingRow) -> bool:
        """Whether this row asks for it."""
        return cls.wanted(row.parameters)

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], transfers: Transfers) -> Self | None:
        """The processor for these rows, or None if none of them asks."""
        if not any(cls.asked(row) for row in rows):
            return None
        return cls(rows, transfers)

    def __call__(self, logits: torch.Tensor, step: Step) -> None:
        """Change ``logits`` ([R, vocabulary] float32) in place."""
        if self._index is None:
            changed = self._change(logits, step)
            if changed is not logits:
                logits.copy_(changed)
        else:
            logits.index_copy_(0, self._index, self._change(logits[self._index], step))

    @abstractmethod
    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        """The chosen rows' new logits, [n, vocabulary], for their old ones, which it may reuse."""

    def _chosen(self, values: torch.Tensor) -> torch.Tensor:
        """Of one value for each row, those of the chosen rows."""
        return values if self._index is None else values.index_select(0, self._index)

    def _column(self, get: Callable[[SamplingParameters], float]) -> torch.Tensor:
        """One parameter of each chosen row: [n, 1] float32."""
        return self._transfers.floats([get(row.parameters) for row in self._rows])[:, None]


class Bias(Processor):
    """Adds ``logit_bias``."""

    wanted = staticmethod(lambda p: bool(p.logit_bias))

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        biases = [row.parameters.logit_bias for row in self._rows]
        self._row = self._transfers.integers([row for row, bias in enumerate(biases) for _ in bias])
        self._token = self._transfers.integers([token for bias in biases for token in bias])
        self._value = self._transfers.floats([value for bias in biases for value in bias.values()])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        logits[self._row, self._token] += self._value
        return logits


class Repetition(Processor):
    """Divides positive logits of tokens in prompt or output, multiplies negative ones."""

    wanted = staticmethod(lambda p: p.repetition_penalty != 1.0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._penalty = self._column(lambda p: p.repetition_penalty)
        self._seen = self._transfers.integers([row.seen for row in self._rows])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        punished = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return torch.where(step.seen.of(self._seen) > 0, punished, logits)


class Frequency(Processor):
    """Subtracts penalty x count / length over prompt and output."""

    wanted = staticmethod(lambda p: p.frequency_penalty != 0.0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._penalty = self._column(lambda p: p.frequency_penalty)
        self._seen = self._transfers.integers([row.seen for row in self._rows])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        lengths = self._chosen(step.lengths)
        return logits - step.seen.of(self._seen) / lengths[:, None] * self._penalty


class OutputPenalties(Processor):
    """OpenAI's two: frequency x count, and presence once, over the output."""

    wanted = staticmethod(
        lambda p: p.output_frequency_penalty != 0.0 or p.output_presence_penalty != 0.0
    )

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._frequency = self._column(lambda p: p.output_frequency_penalty)
        self._presence = self._column(lambda p: p.output_presence_penalty)
        self._output = self._transfers.integers([row.output for row in self._rows])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        counts = step.output.of(self._output)
        return logits - (self._frequency * counts + self._presence * (counts > 0))


class MinimumLength(Processor):
    """Forbids the stop token ids before ``min_new_tokens``."""

    wanted = staticmethod(lambda p: p.min_new_tokens > 0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        stops = [(n, token) for n, row in enumerate(self._rows) for token in row.stop_token_ids]
        self._row = transfers.integers([row for row, _ in stops])
        self._token = transfers.integers([token for _, token in stops])
        shortest = [self._rows[row].parameters.min_new_tokens for row, _ in stops]
        self._shortest = transfers.integers(shortest)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        early = self._chosen(step.positions)[self._row] < self._shortest
        logits[self._row, self._token] = torch.where(
            early, -torch.inf, logits[self._row, self._token]
        )
        return logits


class Grammar(Processor):
    """Forbids what the grammar does not allow."""

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._forbid = Forbid(transfers.device)

    @classmethod
    def asked(cls, row: SamplingRow) -> bool:
        """No parameter tells."""
        return row.guided

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        assert step.masks is not None
        return self._forbid(logits, step.masks)


class Temperature(Processor):
    """Divides by the temperature."""

    wanted = staticmethod(lambda p: p.temperature != 1.0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._temperature = self._column(lambda p: p.temperature)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        # The largest becomes 0 first: nothing overflows, however small the temperature.
        return (logits - logits.amax(dim=-1, keepdim=True)).div_(self._temperature)


class TopK(Processor):
    """Keeps the k largest."""

    wanted = staticmethod(lambda p: p.top_k > 0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        wanted = [row.parameters.top_k for row in self._rows]
        self._largest = max(wanted)
        self._k = self._transfers.integers(wanted)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        vocabulary = logits.shape[1]
        largest = min(self._largest, vocabulary)
        return filters.top_k(logits, self._k.clamp(max=vocabulary), largest)


class Nucleus(Processor):
    """Keeps the nucleus."""

    wanted = staticmethod(lambda p: p.top_p < 1.0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._p = self._transfers.floats([row.parameters.top_p for row in self._rows])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        return step.top_p(logits, self._p)


class TypicalP(Processor):
    """Keeps the typical set."""

    wanted = staticmethod(lambda p: p.typical_p < 1.0)

    def __init__(self, rows: Sequence[SamplingRow], transfers: Transfers) -> None:
        super().__init__(rows, transfers)
        self._p = self._transfers.floats([row.parameters.typical_p for row in self._rows])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        return filters.typical_p(logits, self._p)


ORDER: tuple[type[Processor], ...] = (
    Bias,
    Repetition,
    Frequency,
    OutputPenalties,
    MinimumLength,
    Grammar,
    Temperature,
    TopK,
    Nucleus,
    TypicalP,
)
"""That of ``SamplingParameters``."""


def build(rows: Sequence[SamplingRow], transfers: Transfers) -> list[Processor]:
    """The processors that these rows ask for, in order."""
    found = (kind.of(rows, transfers) for kind in ORDER)
    return [processor for processor in found if processor is not None]
