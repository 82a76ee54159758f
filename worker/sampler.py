"""The next token of each row: processors, then the draw.

Runs in the worker. Pure in (logits, parameters, seed, position, token ids): what a row yields
depends on nothing else in the batch, so a sequence can be continued anywhere. Owns the token counts
of the sequences that need them. What it chooses stays on the device until it is read, and nothing
before that waits for the device, if the kernels do not. Knows nothing of blocks, steps or messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch

from common.sampling import SamplingParameters
from worker import filters, processors
from worker.counts import TokenCounts
from worker.filters import TopP
from worker.kernels.reference.draw import draw
from worker.kernels.reference.sampling import Summary
from worker.processors import NO_ROW, SamplingRow, Step
from worker.race import Draw, SparseDraw
from worker.transfers import Transfers


@dataclass(frozen=True, slots=True)
class SamplingKernels:
    """What the sampler runs on."""

    draw: Draw
    top_p: TopP


SEEING = SamplingKernels(SparseDraw(), filters.top_p)
"""Those that look at what they have computed, to do less: for CPUs."""
UNSEEN = SamplingKernels(draw, filters.top_p_unseen)
"""Those that look at nothing: for devices that are ahead of the host."""


def kernels_for(device: torch.device, summarize: Summary, draw: Draw) -> SamplingKernels:
    """What suits this device: ``summarize`` is for CPUs, ``draw`` for others."""
    if device.type != "cpu":
        return SamplingKernels(draw, filters.top_p_unseen)
    return SamplingKernels(SparseDraw(summarize), filters.top_p)


@dataclass(frozen=True, slots=True)
class Sampled:
    """One entry per row."""

    ids: list[int]
    logprobs: list[float]
    """Log-softmax of the processed logits; NaN if the row has no valid distribution."""
    tops: list[list[tuple[int, float]]]
    """The most likely tokens of rows that ask, best first; empty for the others."""


class _Batch:
    """The constants of one composition of rows: kept while the same sequences step together."""

    def __init__(self, rows: list[SamplingRow], transfers: Transfers) -> None:
        self.rows = rows
        self.processors = processors.build(rows, transfers)
        parameters = [row.parameters for row in rows]
        self.temperature = transfers.floats([float(p.do_sample) for p in parameters])
        """Of the draw: processors have applied that of the parameters."""
        self.seeds = transfers.integers([_signed(p.seed) for p in parameters])
        self.top_rows = [number for number, p in enumerate(parameters) if p.top_n_tokens > 0]
        wanted = [parameters[number].top_n_tokens for number in self.top_rows]
        self.top_index = transfers.integers(self.top_rows)
        self.top_counts = transfers.integers(wanted)
        self.top_most = max(wanted, default=0)
        self.seen = _counted(transfers, [row.seen for row in rows])
        self.output = _counted(transfers, [row.output for row in rows])


@dataclass(frozen=True, slots=True)
class Choice:
    """What has been chosen, on the device."""

    ids: torch.Tensor  # [R] int64
    logprobs: torch.Tensor  # [R] float32
    asked: torch.Tensor | None  # [n, vocabulary] float32, log-probabilities of rows that ask
    batch: _Batch

    @property
    def packed(self) -> torch.Tensor:
        """Ids and log-probabilities, [2, R] float64, in which ids are exact: one copy to the host.

        Tops are read from the device.
        """
        return torch.stack((self.ids.double(), self.logprobs.double()))

    def read(self, packed: torch.Tensor | None = None) -> Sampled:
        """On the host; ``packed`` may have been copied there before."""
        ids, values = (self.packed if packed is None else packed).tolist()
        tops: list[list[tuple[int, float]]] = [[] for _ in self.batch.rows]
        if self.asked is not None:
            found = _tops(self.asked, self.batch)
            for number, top in zip(self.batch.top_rows, found, strict=True):
                tops[number] = top
        return Sampled([int(token) for token in ids], values, tops)


class Sampler:
    """Chooses tokens for rows of logits."""

    def __init__(
        self, vocabulary: int, transfers: Transfers, kernels: SamplingKernels | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._kernels = kernels or SEEING
        self._transfers = transfers
        self._seen = TokenCounts(vocabulary, transfers)
        self._output = TokenCounts(vocabulary, transfers)
        self._batch = _Batch([], transfers)

    @property
    def count_rows_in_use(self) -> int:
        """Rows of token counts held by sequences; 0 when nothing runs."""
        return self._seen.rows_in_use + self._output.rows_in_use

    def admit(
        self,
        parameters: SamplingParameters,
        stop_token_ids: list[int],
        prompt_ids: list[int],
        generated_ids: list[int],
        *,
        guided: bool = False,
    ) -> SamplingRow:
        """What must be kept of a sequence; to be given back to ``release``. All ids are valid.

        A ``guided`` one follows a grammar, which alone says where it may end.
        """
        if guided and parameters.min_new_tokens:
            parameters = msgspec.structs.replace(parameters, min_new_tokens=0)
        known_stops = [token for token in stop_token_ids if 0 <= token < self._vocabulary]
        row = SamplingRow(parameters, known_stops, guided)
        try:
            if parameters.repetition_penalty != 1.0 or parameters.frequency_penalty != 0.0:
                row.seen = self._seen.add(prompt_ids + generated_ids)
            if parameters.output_frequency_penalty or parameters.output_presence_penalty:
                row.output = self._output.add(generated_ids)
        except BaseException:
            self.release(row)
            raise
        return row

    def release(self, row: SamplingRow) -> None:
        """The sequence is gone."""
        if row.seen != NO_ROW:
            self._seen.release(row.seen)
        if row.output != NO_ROW:
            self._output.release(row.output)
        row.seen = row.output = NO_ROW

    def choose(
        self,
        logits: torch.Tensor,
        rows: list[SamplingRow],
        positions: torch.Tensor,
        lengths: torch.Tensor,
        masks: torch.Tensor | None = None,
    ) -> Choice:
        """Choose a token for each row. ``logits`` ([R, vocabulary] float32) is overwritten.

        ``positions`` are the indices of these tokens among the generated ones, ``lengths`` the
        numbers of known tokens, both [R] int64; ``masks`` ([n, words] int32) is what the n guided
        rows among them may choose. Counts do not change: see ``accept``.
        """
        if rows != self._batch.rows:
            self._batch = _Batch(list(rows), self._transfers)
        batch = self._batch
        if batch.processors:
            step = Step(positions, lengths, self._seen, self._output, self._kernels.top_p, masks)
            for processor in batch.processors:
                processor(logits, step)
        ids, logprobs = self._kernels.draw(logits, batch.temperature, batch.seeds, positions)
        asked = None
        if batch.top_rows:
            asked = torch.log_softmax(logits.index_select(0, batch.top_index), dim=-1)
        return Choice(ids, logprobs, asked, batch)

    def accept(self, choice: Choice) -> None:
        """Count the tokens chosen: their sequences have taken them."""
        for counts, counted in (
            (self._seen, choice.batch.seen),
            (self._output, choice.batch.output),
        ):
            if counted is not None:
                counts.increment(counted.table_rows, choice.ids.index_select(0, counted.numbers))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Rows of a batch whose tokens are counted, and where."""

    numbers: torch.Tensor  # [n] int64
    table_rows: torch.Tensor  # [n] int64


def _signed(seed: int) -> int:
    """The lowest 64 bits as a signed number."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)


def _counted(transfers: Transfers, table_rows: Sequence[int]) -> _Counted | None:
    numbers = [number for number, row in enumerate(table_rows) if row != NO_ROW]
    if not numbers:
        return None
    where = transfers.integers([table_rows[number] for number in numbers])
    return _Counted(transfers.integers(numbers), where)


def _tops(asked: torch.Tensor, batch: _Batch) -> list[list[tuple[int, float]]]:
    """The n most likely tokens with all ties of the n-th, for the rows that ask."""
    vocabulary = asked.shape[1]
    head = asked.topk(min(batch.top_most, vocabulary), dim=-1).values
    threshold = head.gather(1, batch.top_counts[:, None].clamp(max=vocabulary) - 1)
    where = torch.nonzero((asked >= threshold) & (asked > -torch.inf))
    found: list[list[tuple[int, float]]] = [[] for _ in batch.top_rows]
    values = asked[where[:, 0], where[:, 1]].tolist()
    for (row, token), value in zip(where.tolist(), values, strict=True):
        found[row].append((token, value))
    for top in found:
        top.sort(key=lambda pair: (-pair[1], pair[0]))
    return found
