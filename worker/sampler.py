"""The next token of each row: processors, then the draw.

Runs in the worker. Pure in (logits, parameters, seed, position, token ids): what a row yields
depends on nothing else in the batch, so a sequence can be continued anywhere. Owns the token counts
of the sequences that need them. Knows nothing of blocks, steps or messages.

The draw is a race (Gumbel-max): each token's exponential noise is divided by its probability, the
smallest wins. Noise is needed only for tokens that the filters have left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch

from common.sampling import SamplingParameters
from worker import noise, processors
from worker.counts import TokenCounts
from worker.kernels.reference.sampling import Summary, summarize
from worker.processors import NO_ROW, SamplingRow, Step

_SPARSE_FACTOR = 6
"""PERF: noise for one chosen token costs about what it costs for so many in a row."""


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

    def __init__(self, rows: list[SamplingRow], device: torch.device) -> None:
        self.rows = rows
        self.processors = processors.build(rows, device)
        parameters = [row.parameters for row in rows]
        self.drawn = [number for number, p in enumerate(parameters) if p.do_sample]
        self.drawn_index = torch.tensor(self.drawn, dtype=torch.int64, device=device)
        self.keys = noise.split_seeds([parameters[number].seed for number in self.drawn], device)
        self.top_rows = [number for number, p in enumerate(parameters) if p.top_n_tokens > 0]
        self.top_index = torch.tensor(self.top_rows, dtype=torch.int64, device=device)
        wanted = [parameters[number].top_n_tokens for number in self.top_rows]
        self.top_counts = torch.tensor(wanted, dtype=torch.int64, device=device)
        self.top_most = max(wanted, default=0)


class Sampler:
    """Chooses tokens for rows of logits."""

    def __init__(
        self, vocabulary: int, device: torch.device, summarize: Summary = summarize
    ) -> None:
        self._vocabulary = vocabulary
        self._summarize = summarize
        self._device = device
        self._seen = TokenCounts(vocabulary, device)
        self._output = TokenCounts(vocabulary, device)
        self._batch = _Batch([], device)

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

    def sample(
        self,
        logits: torch.Tensor,
        rows: list[SamplingRow],
        positions: list[int],
        lengths: list[int],
        masks: torch.Tensor | None = None,
    ) -> Sampled:
        """Choose a token for each row. ``logits`` ([R, vocabulary] float32) is overwritten.

        ``positions`` are the indices of these tokens among the generated ones, ``lengths`` the
        numbers of known tokens, ``masks`` ([n, words] int32) what the n guided rows among them may
        choose. Counts do not change: see ``accept``.
        """
        if rows != self._batch.rows:
            self._batch = _Batch(list(rows), self._device)
        batch = self._batch
        if batch.processors:
            step = Step(positions, lengths, self._seen, self._output, masks)
            for processor in batch.processors:
                processor(logits, step)
        chosen, log_sums = self._summarize(logits)
        if batch.drawn:
            chosen[batch.drawn_index] = self._draw(logits, batch, positions)
        picked = logits.gather(1, chosen[:, None])[:, 0] - log_sums
        # One copy to the host: ids are exact in float64.
        ids, values = torch.stack((chosen.double(), picked.double())).tolist()
        tops: list[list[tuple[int, float]]] = [[] for _ in rows]
        if batch.top_rows:
            asked = logits[batch.top_index] - log_sums[batch.top_index, None]
            for number, top in zip(batch.top_rows, _tops(asked, batch), strict=True):
                tops[number] = top
        return Sampled([int(token) for token in ids], values, tops)

    def accept(self, rows: list[SamplingRow], ids: list[int]) -> None:
        """Count the tokens that these rows' sequences have taken."""
        if self._seen.rows_in_use:
            _count(self._seen, [(row.seen, token) for row, token in zip(rows, ids, strict=True)])
        if self._output.rows_in_use:
            _count(
                self._output, [(row.output, token) for row, token in zip(rows, ids, strict=True)]
            )

    def _draw(self, logits: torch.Tensor, batch: _Batch, positions: list[int]) -> torch.Tensor:
        """Winners of the race in the rows that sample: [n] int64."""
        everywhere = len(batch.drawn) == len(batch.rows)
        racing = logits if everywhere else logits[batch.drawn_index]
        steps = torch.tensor(
            [positions[number] for number in batch.drawn], dtype=torch.int64, device=self._device
        )
        if self._device.type == "cpu":
            where = torch.nonzero(racing > -torch.inf)
            if len(where) * _SPARSE_FACTOR < racing.numel():
                row, token = where[:, 0], where[:, 1]
                keys = (batch.keys[0][row], batch.keys[1][row])
                times = noise.exponentials_at(keys, steps[row], token)
                race = torch.full_like(racing, -torch.inf)
                race[row, token] = racing[row, token] - times.log_()
                return race.argmax(dim=-1)
        times = noise.exponentials(batch.keys, steps, racing.shape[1])
        return (racing - times.log_()).argmax(dim=-1)


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


def _count(counts: TokenCounts, tokens: Sequence[tuple[int, int]]) -> None:
    kept = [(row, token) for row, token in tokens if row != NO_ROW]
    if kept:
        counts.increment([row for row, _ in kept], [token for _, token in kept])
