"""What changes logits before the draw, each processor over just the rows that ask for it.

Runs in the worker, inside the sampler. One class per processor of ``common.sampling``, but the
penalties, which are one; each is built for the rows of a batch (or not at all, if none asks) and
changes their logits in place. What it needs on the device goes there with the step's parcel.
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
from worker.kernels.reference.penalties import Penalties
from worker.kernels.sampling import SamplingKernels
from worker.masks import Forbid
from worker.parcel import Parcel, Sent
from worker.watermark import Favour

NO_ROW = -1

_MOST_REPETITION = 1e30
"""Of a repetition penalty, and of its inverse: beyond them logits would become infinite."""


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
    kernels: SamplingKernels
    forbid: Forbid
    favour: Favour
    masks: torch.Tensor | None = None
    """[guided rows, words] int32, the tokens that each one's grammar allows; None without any."""
    last_ids: Sequence[int] = ()
    """The last known token of each row that gets a watermark."""


def _repetition(parameters: SamplingParameters) -> float:
    return min(max(parameters.repetition_penalty, 1 / _MOST_REPETITION), _MOST_REPETITION)


def counts_seen(parameters: SamplingParameters) -> bool:
    """Whether it needs counts of prompt and output."""
    return parameters.repetition_penalty != 1.0 or parameters.frequency_penalty != 0.0


def counts_output(parameters: SamplingParameters) -> bool:
    """Whether it needs counts of the output alone."""
    return bool(parameters.output_frequency_penalty or parameters.output_presence_penalty)


class Processor(ABC):
    """Changes the logits of the rows that ask for it: most often all rows, or none."""

    wanted: "ClassVar[staticmethod[[SamplingParameters], bool]]"
    """Tells whether a sequence with these parameters asks for it."""

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        numbers = [number for number, row in enumerate(rows) if self.asked(row)]
        self._rows = [rows[number] for number in numbers]
        everywhere = len(self._rows) == len(rows)
        self._numbers = None if everywhere else parcel.integers(numbers)

    @classmethod
    def asked(cls, row: SamplingRow) -> bool:
        """Whether this row asks for it."""
        return cls.wanted(row.parameters)

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], parcel: Parcel) -> Self | None:
        """The processor for these rows, or None if none of them asks."""
        if not any(cls.asked(row) for row in rows):
            return None
        return cls(rows, parcel)

    @abstractmethod
    def __call__(self, logits: torch.Tensor, step: Step) -> None:
        """Change ``logits`` ([R, vocabulary] float32) in place."""

    @property
    def _index(self) -> torch.Tensor | None:
        """[n] int64, the numbers of the chosen rows; None: they are all rows."""
        return None if self._numbers is None else self._numbers.tensor

    def _column(self, parcel: Parcel, get: Callable[[SamplingParameters], float]) -> Sent:
        """One parameter of each chosen row: [n] float32."""
        return parcel.floats([get(row.parameters) for row in self._rows])


class Penalize(Processor):
    """The penalties on tokens that a sequence has, by one kernel for all that ask for any."""

    wanted = staticmethod(lambda p: counts_seen(p) or counts_output(p))

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        self._repetition = self._column(parcel, _repetition)
        self._frequency = self._column(parcel, lambda p: p.frequency_penalty)
        self._output_frequency = self._column(parcel, lambda p: p.output_frequency_penalty)
        self._output_presence = self._column(parcel, lambda p: p.output_presence_penalty)
        self._seen = parcel.integers([row.seen for row in self._rows])
        self._output = parcel.integers([row.output for row in self._rows])
        asked = [row.parameters for row in self._rows]
        self._frequent = any(p.frequency_penalty for p in asked)
        self._counts_seen = any(counts_seen(p) for p in asked)
        self._counts_output = any(counts_output(p) for p in asked)

    def __call__(self, logits: torch.Tensor, step: Step) -> None:
        """As ``Processor.__call__``."""
        penalties = Penalties(
            rows=self._index,
            repetition=self._repetition.tensor,
            frequency=self._frequency.tensor,
            output_frequency=self._output_frequency.tensor,
            output_presence=self._output_presence.tensor,
            seen_rows=self._seen.tensor,
            output_rows=self._output.tensor,
            frequent=self._frequent,
            counts_seen=self._counts_seen,
            counts_output=self._counts_output,
        )
        step.kernels.penalize(logits, penalties, step.seen.table, step.output.table, step.lengths)


class RowProcessor(Processor):
    """One whose chosen rows are taken out, changed and put back, unless they are all rows."""

    def __call__(self, logits: torch.Tensor, step: Step) -> None:
        """As ``Processor.__call__``."""
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


class Watermark(RowProcessor):
    """Raises the tokens that are green after the last one."""

    wanted = staticmethod(lambda p: p.watermark)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        return step.favour(logits, step.last_ids)


class Bias(RowProcessor):
    """Adds ``logit_bias``."""

    wanted = staticmethod(lambda p: bool(p.logit_bias))

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        biases = [row.parameters.logit_bias for row in self._rows]
        self._row = parcel.integers([row for row, bias in enumerate(biases) for _ in bias])
        self._token = parcel.integers([token for bias in biases for token in bias])
        self._value = parcel.floats([value for bias in biases for value in bias.values()])

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        logits[self._row.tensor, self._token.tensor] += self._value.tensor
        return logits


class MinimumLength(RowProcessor):
    """Forbids the stop token ids before ``min_new_tokens``."""

    wanted = staticmethod(lambda p: p.min_new_tokens > 0)

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        stops = [(n, token) for n, row in enumerate(self._rows) for token in row.stop_token_ids]
        self._row = parcel.integers([row for row, _ in stops])
        self._token = parcel.integers([token for _, token in stops])
        shortest = [self._rows[row].parameters.min_new_tokens for row, _ in stops]
        self._shortest = parcel.integers(shortest)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        row, token = self._row.tensor, self._token.tensor
        early = self._chosen(step.positions)[row] < self._shortest.tensor
        logits[row, token] = torch.where(early, -torch.inf, logits[row, token])
        return logits


class Grammar(RowProcessor):
    """Forbids what the grammar does not allow."""

    @classmethod
    def asked(cls, row: SamplingRow) -> bool:
        """No parameter tells."""
        return row.guided

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        assert step.masks is not None
        return step.forbid(logits, step.masks)


class Temperature(RowProcessor):
    """Divides by the temperature."""

    wanted = staticmethod(lambda p: p.temperature != 1.0)

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        self._temperature = self._column(parcel, lambda p: p.temperature)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        # The largest becomes 0 first: nothing overflows, however small the temperature.
        return logits.sub_(logits.amax(dim=-1, keepdim=True)).div_(
            self._temperature.tensor[:, None]
        )


class MinP(RowProcessor):
    """Keeps what is likely enough beside the likeliest."""

    wanted = staticmethod(lambda p: p.min_p > 0.0)

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        self._p = self._column(parcel, lambda p: p.min_p)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        return filters.min_p(logits, self._p.tensor)


class TopK(RowProcessor):
    """Keeps the k largest."""

    wanted = staticmethod(lambda p: p.top_k > 0)

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        wanted = [row.parameters.top_k for row in self._rows]
        self._largest = max(wanted)
        self._k = parcel.integers(wanted)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        vocabulary = logits.shape[1]
        largest = min(self._largest, vocabulary)
        return step.kernels.top_k(logits, self._k.tensor.clamp(max=vocabulary), largest)


class Nucleus(RowProcessor):
    """Keeps the nucleus."""

    wanted = staticmethod(lambda p: p.top_p < 1.0)

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        self._p = self._column(parcel, lambda p: p.top_p)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        return step.kernels.top_p(logits, self._p.tensor)


class TypicalP(RowProcessor):
    """Keeps the typical set."""

    wanted = staticmethod(lambda p: p.typical_p < 1.0)

    def __init__(self, rows: Sequence[SamplingRow], parcel: Parcel) -> None:
        super().__init__(rows, parcel)
        self._p = self._column(parcel, lambda p: p.typical_p)

    def _change(self, logits: torch.Tensor, step: Step) -> torch.Tensor:
        return filters.typical_p(logits, self._p.tensor)


ORDER: tuple[type[Processor], ...] = (
    Watermark,
    Bias,
    Penalize,
    MinimumLength,
    Grammar,
    Temperature,
    MinP,
    TopK,
    Nucleus,
    TypicalP,
)
"""That of ``SamplingParameters``."""


def build(rows: Sequence[SamplingRow], parcel: Parcel) -> list[Processor]:
    """The processors that these rows ask for, in order."""
    found = (kind.of(rows, parcel) for kind in ORDER)
    return [processor for processor in found if processor is not None]
