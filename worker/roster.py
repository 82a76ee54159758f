"""The sequences that run: who enters, who gets blocks, whose grammar has come, who leaves.

Runs in the worker, below the engine. Owns the sequences, and their ends that were found outside of
steps. Never fails: a sequence that cannot run becomes news. Knows nothing of steps but that one
under way may still write to a sequence's blocks.
"""

from collections.abc import Callable, Iterable

import torch

from common.messages import Grant, NewSequence, Progress, SequenceTokens
from worker.guidance import Guidance
from worker.runner import Runner
from worker.sequences import Sequence, SequenceError, begin, check, check_blocks, failure
from worker.shortage import relieve
from worker.speculation.speculation import Speculation


class Roster:
    """All of one engine."""

    def __init__(
        self,
        runner: Runner,
        guidance: Guidance | None,
        speculation: Speculation,
        *,
        vocabulary: int,
        blocks: int,
        adapters: tuple[str, ...],
        device: torch.device,
        tell_later: Callable[[Progress], None],
    ) -> None:
        """``tell_later`` takes ends of sequences that a step under way may still write to."""
        self._runner = runner
        self._guidance = guidance
        self._speculation = speculation
        self._vocabulary = vocabulary
        self._blocks = blocks
        self._adapters = adapters
        self._device = device
        self._tell_later = tell_later
        self._running: dict[int, Sequence] = {}
        self._news: list[Progress] = []

    def __len__(self) -> int:
        return len(self._running)

    @property
    def sequences(self) -> Iterable[Sequence]:
        """In the order in which they came."""
        return self._running.values()

    def holds(self, sequence: Sequence) -> bool:
        """RACE: it may have ended, or been released, since a step was launched."""
        return self._running.get(sequence.id) is sequence

    def take_news(self) -> list[Progress]:
        """Ends found outside of steps since the last call."""
        news, self._news = self._news, []
        return news

    def add(self, new: NewSequence) -> None:
        """Let one in; in place of one of the same id, if there is any."""
        spec = new.spec
        self.drop(spec.id)
        try:
            check(new, vocabulary=self._vocabulary, blocks=self._blocks, adapters=self._adapters)
            if spec.grammar and self._guidance is None:
                raise SequenceError("this server cannot follow grammars with this model")
            row, table_row = self._runner.admit(new)
        except SequenceError as error:
            self._news.append(failure(new, str(error)))
            return
        except Exception as error:
            if not relieve(error, self._device):
                raise
            self._news.append(failure(new, "no memory is left for the sequence's token counts"))
            return
        sequence = self._running[spec.id] = begin(new, row, table_row, self._adapters)
        if not spec.grammar:
            sequence.speculator = self._speculation.admit(sequence.ids, sequence.limit)
        over = self.end(sequence)
        if over is not None:
            self._news.append(over)
        elif spec.grammar and self._guidance is not None:
            sequence.waiting = True
            sequence.guide = self._guidance.admit(
                spec.id, spec.grammar, row.stop_token_ids, new.generated_ids
            )

    def extend(self, grant: Grant) -> None:
        """More blocks for one."""
        sequence = self._running.get(grant.id)
        if sequence is None:  # RACE: the scheduler granted while this worker ended the sequence
            return
        try:
            check_blocks(grant.blocks, blocks=self._blocks)
        except SequenceError as error:
            self._tell(sequence, self.fail(sequence, str(error)))
            return
        sequence.blocks += grant.blocks
        self._runner.extend(sequence.table_row, grant.blocks)

    def meet_guides(self) -> None:
        """Sequences whose guides have arrived wait no longer."""
        if self._guidance is None:
            return
        for guide in self._guidance.arrived():
            sequence = self._running.get(guide.owner)
            if sequence is None or sequence.guide is not guide:
                continue  # RACE: dropped here while another thread compiled its grammar
            sequence.waiting = False
            over = self.fail(sequence, guide.error) if guide.error else self.end(sequence)
            if over is not None:
                self._tell(sequence, over)

    def end(self, sequence: Sequence) -> Progress | None:
        """An end without a token, if it is over: its last one came, but the end of it did not."""
        finish = sequence.finish()
        if not finish:
            return None
        self.drop(sequence.id)
        tokens = SequenceTokens(sequence.id, sequence.attempt, sequence.index, finish=finish)
        return Progress(tokens, sequence.computed)

    def fail(self, sequence: Sequence, sentence: str) -> Progress:
        """Its end, by a mistake of its own or of ours."""
        self.drop(sequence.id)
        tokens = SequenceTokens(sequence.id, sequence.attempt, sequence.index)
        return Progress(tokens, sequence.computed, sentence)

    def drop(self, sequence_id: int) -> None:
        """The one place where a sequence's rows are given back.

        RACE: a step under way may still use them. Whoever gets them next is computed after it.
        """
        sequence = self._running.pop(sequence_id, None)
        if sequence is not None:
            self._runner.release(sequence.row, sequence.table_row)

    def clear(self) -> None:
        """Drop all of them, and forget the news."""
        for sequence_id in list(self._running):
            self.drop(sequence_id)
        self._news.clear()

    def _tell(self, sequence: Sequence, over: Progress) -> None:
        if sequence.in_flight:
            self._tell_later(over)
        else:
            self._news.append(over)
