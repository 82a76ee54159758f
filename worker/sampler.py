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
from worker import processors
from worker.counts import TokenCounts
from worker.kernels.sampling import SEEING, SamplingKernels
from worker.masks import Forbid
from worker.parcel import Parcel, Sent
from worker.processors import NO_ROW, SamplingRow, Step, counts_output, counts_seen
from worker.watermark import USUAL, Favour, Rule

Chosen = tuple[int, float, list[tuple[int, float]]]
"""A token, its log-probability, and the most likely ones."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One entry per row."""

    ids: list[int]
    logprobs: list[float]
    """Log-softmax of the processed logits; NaN if the row has no valid distribution."""
    tops: list[list[tuple[int, float]]]
    """The most likely tokens of rows that ask, best first; empty for the others."""

    def tokens(self) -> list[Chosen]:
        """Row by row."""
        return list(zip(self.ids, self.logprobs, self.tops, strict=True))


class Batch:
    """The constants of one composition of rows: kept while the same sequences step together."""

    def __init__(self, rows: list[SamplingRow], parcel: Parcel) -> None:
        self.rows = rows
        self.processors = processors.build(rows, parcel)
        parameters = [row.parameters for row in rows]
        self.temperature = parcel.floats([float(p.do_sample) for p in parameters])
        """Of the draw: processors have applied that of the parameters."""
        self.seeds = parcel.integers([_signed(p.seed) for p in parameters])
        self.top_rows = [number for number, p in enumerate(parameters) if p.top_n_tokens > 0]
        wanted = [parameters[number].top_n_tokens for number in self.top_rows]
        self.top_index = parcel.integers(self.top_rows)
        self.top_counts = parcel.integers(wanted)
        self.top_most = max(wanted, default=0)
        self.marked = [number for number, p in enumerate(parameters) if p.watermark]
        """Rows that get a watermark: what they choose from depends on the last token's id."""
        self.seen = _counted(parcel, [row.seen for row in rows])
        self.output = _counted(parcel, [row.output for row in rows])

    @property
    def there(self) -> bool:
        """Whether they have been sent to the device: all of them went at once."""
        return self.seeds.there


@dataclass(frozen=True, slots=True)
class Choice:
    """What has been chosen, on the device."""

    ids: torch.Tensor  # [R] int64
    logprobs: torch.Tensor  # [R] float32
    asked: torch.Tensor | None  # [n, vocabulary] float32, log-probabilities of rows that ask
    batch: Batch

    @property
    def needs_host(self) -> bool:
        """Whether the host has to read it before anything else is chosen for these rows."""
        return self.asked is not None or bool(self.batch.marked)

    @property
    def packed(self) -> torch.Tensor:
        """Ids and log-probabilities, [2, R] float64, in which ids are exact: one copy to the host.

        Tops are read from the device.
        """
        return torch.stack((self.ids.double(), self.logprobs.double()))

    def read(self, packed: torch.Tensor) -> Sampled:
        """On the host, where ``packed`` has been copied to."""
        ids, values = packed.tolist()
        tops: list[list[tuple[int, float]]] = [[] for _ in self.batch.rows]
        if self.asked is not None:
            found = _tops(self.asked, self.batch)
            for number, top in zip(self.batch.top_rows, found, strict=True):
                tops[number] = top
        return Sampled([int(token) for token in ids], values, tops)


class Sampler:
    """Chooses tokens for rows of logits."""

    def __init__(
        self,
        vocabulary: int,
        device: torch.device,
        kernels: SamplingKernels = SEEING,
        watermark: Rule = USUAL,
    ) -> None:
        self._vocabulary = vocabulary
        self._kernels = kernels
        self._forbid = Forbid(device)
        self._favour = Favour(vocabulary, device, watermark)
        self._seen = TokenCounts(vocabulary, device)
        self._output = TokenCounts(vocabulary, device)
        self._batch: Batch | None = None

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
            if counts_seen(parameters):
                row.seen = self._seen.add(prompt_ids + generated_ids)
            if counts_output(parameters):
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

    def branch(self, row: SamplingRow, ids: list[int]) -> SamplingRow:
        """The same sequence, had it these tokens, too; to be given back to ``release``."""
        branch = SamplingRow(row.parameters, row.stop_token_ids, row.guided)
        try:
            if row.seen != NO_ROW:
                branch.seen = self._seen.branch(row.seen, ids)
            if row.output != NO_ROW:
                branch.output = self._output.branch(row.output, ids)
        except BaseException:
            self.release(branch)
            raise
        return branch

    def pack(self, rows: list[SamplingRow], parcel: Parcel) -> Batch:
        """Rows that a token is to be chosen for; what the device lacks for it goes with the parcel.

        To be given to ``choose`` once that has been sent, before anything else happens here.
        """
        self._seen.pack(parcel)
        self._output.pack(parcel)
        batch = self._batch
        if batch is None or batch.rows != rows or not batch.there:
            batch = self._batch = Batch(list(rows), parcel)
        return batch

    def choose(
        self,
        logits: torch.Tensor,
        batch: Batch,
        positions: torch.Tensor,
        lengths: torch.Tensor,
        masks: torch.Tensor | None = None,
        last_ids: Sequence[int] = (),
    ) -> Choice:
        """Choose a token for each row. ``logits`` ([R, vocabulary] float32) is overwritten.

        ``positions`` are the indices of these tokens among the generated ones, ``lengths`` the
        numbers of known tokens, both [R] int64; ``masks`` ([n, words] int32) is what the n guided
        rows among them may choose; ``last_ids`` are the last known tokens of ``batch.marked``.
        Counts of these tokens do not change: see ``accept`` and ``count``.
        """
        self._seen.settle()
        self._output.settle()
        if batch.processors:
            step = Step(
                positions,
                lengths,
                self._seen,
                self._output,
                self._kernels,
                self._forbid,
                self._favour,
                masks,
                last_ids,
            )
            for processor in batch.processors:
                processor(logits, step)
        temperature, seeds = batch.temperature.tensor, batch.seeds.tensor
        ids, logprobs = self._kernels.draw(logits, temperature, seeds, positions)
        asked = None
        if batch.top_rows:
            index = batch.top_index.tensor
            asked = _of_all(*(of.index_select(0, index) for of in (logits, ids, logprobs)))
        return Choice(ids, logprobs, asked, batch)

    def count(self, row: SamplingRow, ids: list[int]) -> None:
        """The sequence has taken these tokens."""
        if row.seen != NO_ROW:
            self._seen.append(row.seen, ids)
        if row.output != NO_ROW:
            self._output.append(row.output, ids)

    def accept(self, choice: Choice) -> None:
        """All sequences have taken the tokens chosen, which the host does not know yet.

        They are counted in all tables; in none where there is no memory to work out where.
        """
        batch = choice.batch
        tables = ((self._seen, batch.seen), (self._output, batch.output))
        changes = [
            (
                counts,
                counts.places(
                    counted.table_rows.tensor,
                    choice.ids.index_select(0, counted.numbers.tensor),
                ),
            )
            for counts, counted in tables
            if counted is not None
        ]
        for counts, places in changes:
            counts.increase(places)


@dataclass(frozen=True, slots=True)
class _Counted:
    """Rows of a batch whose tokens are counted, and where."""

    numbers: Sent  # [n] int64
    table_rows: Sent  # [n] int64


def _signed(seed: int) -> int:
    """The lowest 64 bits as a signed number."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)


def _counted(parcel: Parcel, table_rows: Sequence[int]) -> _Counted | None:
    numbers = [number for number, row in enumerate(table_rows) if row != NO_ROW]
    if not numbers:
        return None
    where = parcel.integers([table_rows[number] for number in numbers])
    return _Counted(parcel.integers(numbers), where)


def _of_all(logits: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    """All tokens' log-probabilities, [n, vocabulary] float32, from those of the chosen ones.

    So that a token has one: a softmax of its own would differ from the draw's in the last digit.
    """
    behind = logits - logits.gather(1, ids[:, None])
    return behind.add_(logprobs[:, None]).clamp_(max=0)


def _tops(asked: torch.Tensor, batch: Batch) -> list[list[tuple[int, float]]]:
    """The n most likely tokens with all ties of the n-th, for the rows that ask."""
    vocabulary = asked.shape[1]
    head = asked.topk(min(batch.top_most, vocabulary), dim=-1).values
    threshold = head.gather(1, batch.top_counts.tensor[:, None].clamp(max=vocabulary) - 1)
    where = torch.nonzero((asked >= threshold) & (asked > -torch.inf))
    found: list[list[tuple[int, float]]] = [[] for _ in batch.top_rows]
    values = asked[where[:, 0], where[:, 1]].tolist()
    for (row, token), value in zip(where.tolist(), values, strict=True):
        found[row].append((token, value))
    for top in found:
        top.sort(key=lambda pair: (-pair[1], pair[0]))
    return found
