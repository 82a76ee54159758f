"""One step after another: whose turn, assemble, forward, sample, retire.

Runs in the worker. Owns the running sequences and all that is kept for them. Takes Dispatches,
yields Progress; never waits for anybody. What goes wrong in one sequence ends that one: a step that
fails as a whole is repeated sequence by sequence. Knows nothing of sockets or epochs.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from common.logs import about
from common.messages import Dispatch, Grant, NewSequence, Progress, SequenceTokens
from worker.batch import BlockTables, Wanted, assemble, wanted_rows
from worker.errors import GroupLostError
from worker.faults import Faults
from worker.guidance import Guidance
from worker.interfaces import Model
from worker.kernels.reference.sampling import Summary, summarize
from worker.masks import Pending
from worker.pace import Pace
from worker.sampler import Sampled, Sampler
from worker.sequences import Sequence, SequenceError, check, check_blocks, failure
from worker.shortage import relieve
from worker.turns import Part, take_turns

_PROMPT_ROWS = 256
"""Prompt logits are computed for so many tokens at a time: [256, vocabulary], never [T, …]."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class StepResult:
    """What a step did, and what it cost in seconds."""

    items: list[Progress] = field(default_factory=list)
    prefill_tokens: int = 0
    decode_tokens: int = 0
    forward_s: float = 0.0
    sample_s: float = 0.0
    repeated: bool = False  # it failed as a whole
    piece_tokens: int = 0


class Engine:
    """Advances every sequence that has room, one step at a time."""

    def __init__(
        self,
        model: Model,
        cache: Any,
        *,
        blocks: int,
        device: torch.device,
        clock: Callable[[], float],
        guidance: Guidance | None = None,
        faults: Faults | None = None,
        summarize: Summary = summarize,
        longest_step_s: float = 0.0,  # what the largest possible step will take
    ) -> None:
        """Without ``guidance``, sequences with a grammar fail; ``faults`` are for tests only."""
        self._model = model
        self._cache = cache
        self._blocks = blocks
        self._device = device
        self._clock = clock
        self._guidance = guidance
        self._faults = faults
        self._vocabulary = model.configuration.vocab_size
        self._sampler = Sampler(self._vocabulary, device, summarize)
        self._tables = BlockTables()
        self._running: dict[int, Sequence] = {}
        self._news: list[Progress] = []
        self._released: list[int] = []
        self._step_tokens = 1
        self._pace = Pace(longest_step_s)
        self._steps = 0
        self._turns = 0

    @property
    def blocks(self) -> int:
        """KV blocks, block 0 included."""
        return self._blocks

    @property
    def cache(self) -> Any:
        """The keys and values, as the model takes them."""
        return self._cache

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self._device.type

    @property
    def dtype(self) -> str:
        """What the model computes in, such as ``float32``."""
        return str(self._model.configuration.dtype).removeprefix("torch.")

    @property
    def prefix_caching(self) -> bool:
        """Whether sequences may begin with cached tokens."""
        return self._model.shares_prefixes

    @property
    def wakeup_fds(self) -> list[int]:
        """One of them is readable while other threads have finished what a step waits for."""
        return [] if self._guidance is None else [self._guidance.wakeup_fd]

    def close(self) -> None:
        """No more steps: ends the threads."""
        if self._guidance is not None:
            self._guidance.close()

    @property
    def longest_step_s(self) -> float:
        """What the longest step so far took, those of the warm-up included."""
        return self._pace.longest_step_s

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self._steps

    @property
    def held(self) -> int:
        """Sequences, table rows and count rows in use: 0 when nothing runs."""
        rows = self._tables.rows_in_use + self._sampler.count_rows_in_use
        return len(self._running) + rows

    @torch.inference_mode()
    def apply(self, dispatch: Dispatch) -> None:
        """Release, add, grant. Never fails; sequences that cannot run become news."""
        self._step_tokens = max(1, dispatch.step_tokens)
        self._pace.bound(dispatch.max_stall_s, self._step_tokens)
        for sequence_id in dispatch.release:
            self._drop(sequence_id)
            self._released.append(sequence_id)
        for new in dispatch.add:
            self._add(new)
        for grant in dispatch.grants:
            self._extend(grant)

    @torch.inference_mode()
    def reset(self) -> None:
        """Drop everything, news included."""
        for sequence_id in list(self._running):
            self._drop(sequence_id)
        self._news.clear()
        self._released.clear()

    def take_news(self) -> tuple[list[Progress], list[int]]:
        """Ends found outside of steps, and released ids, since the last call."""
        news, self._news = self._news, []
        released, self._released = self._released, []
        return news, released

    @torch.inference_mode()
    def step(self) -> StepResult | None:
        """Advance whoever can; None if nobody can."""
        self._meet_guides()
        turn = take_turns(self._running.values(), self._step_tokens, self._pace.allowance())
        if not turn.parts:
            return None
        self._steps += 1
        result = StepResult(decode_tokens=turn.decoding)
        result.prefill_tokens = sum([part.tokens for part in turn.parts]) - turn.decoding
        self._attempt(turn.parts, turn.decoding, result)
        self._pace.observe(result.forward_s + result.sample_s, turn.decoding, turn.pieces)
        result.piece_tokens = self._pace.piece_tokens
        return result

    # --- changes to what runs -----------------------------------------------------------------

    def _add(self, new: NewSequence) -> None:
        spec = new.spec
        self._drop(spec.id)
        try:
            check(new, vocabulary=self._vocabulary, blocks=self._blocks)
            if spec.grammar and self._guidance is None:
                raise SequenceError("this server cannot follow grammars with this model")
            row = self._sampler.admit(
                spec.sampling,
                spec.stop_token_ids,
                spec.prompt_ids,
                new.generated_ids,
                guided=bool(spec.grammar),
            )
        except SequenceError as error:
            self._news.append(failure(new, str(error)))
            return
        except Exception as error:
            if not relieve(error, self._device):
                raise
            self._news.append(failure(new, "no memory is left for the sequence's token counts"))
            return
        sequence = Sequence(
            spec=spec,
            attempt=new.attempt,
            ids=spec.prompt_ids + new.generated_ids,
            computed=new.cached_tokens,
            blocks=list(new.blocks),
            row=row,
            table_row=self._tables.add(new.blocks),
            cached_tokens=new.cached_tokens,
            queue_s=new.queue_s,
            stop_ids=frozenset(spec.stop_token_ids),
            prompt_length=len(spec.prompt_ids),
            announce=not new.generated_ids,
        )
        self._running[spec.id] = sequence
        over = self._end(sequence)
        if over is not None:
            self._news.append(over)
        elif spec.grammar and self._guidance is not None:
            sequence.waiting = True
            sequence.guide = self._guidance.admit(
                spec.id, spec.grammar, row.stop_token_ids, new.generated_ids
            )

    def _end(self, sequence: Sequence) -> Progress | None:
        """An end without a token, if it is over: its last one came, but the end of it did not."""
        finish = sequence.finish()
        if not finish:
            return None
        self._drop(sequence.id)
        tokens = SequenceTokens(sequence.id, sequence.attempt, sequence.index, finish=finish)
        return Progress(tokens, sequence.computed)

    def _meet_guides(self) -> None:
        """Sequences whose guides have arrived wait no longer."""
        if self._guidance is None:
            return
        for guide in self._guidance.arrived():
            sequence = self._running.get(guide.owner)
            if sequence is None or sequence.guide is not guide:
                continue  # RACE: dropped here while another thread compiled its grammar
            sequence.waiting = False
            over = self._fail(sequence, guide.error) if guide.error else self._end(sequence)
            if over is not None:
                self._news.append(over)

    def _extend(self, grant: Grant) -> None:
        sequence = self._running.get(grant.id)
        if sequence is None:  # RACE: the scheduler granted while this worker ended the sequence
            return
        try:
            check_blocks(grant.blocks, blocks=self._blocks)
        except SequenceError as error:
            self._news.append(self._fail(sequence, str(error)))
            return
        sequence.blocks += grant.blocks
        self._tables.append(sequence.table_row, grant.blocks)

    def _drop(self, sequence_id: int) -> None:
        """The one place where a sequence's rows are given back."""
        sequence = self._running.pop(sequence_id, None)
        if sequence is not None:
            self._tables.release(sequence.table_row)
            self._model.release(sequence.table_row)
            self._sampler.release(sequence.row)

    def _fail(self, sequence: Sequence, sentence: str) -> Progress:
        self._drop(sequence.id)
        tokens = SequenceTokens(sequence.id, sequence.attempt, sequence.index)
        return Progress(tokens, sequence.computed, sentence)

    # --- a step -------------------------------------------------------------------------------

    def _attempt(self, parts: list[Part], decoding: int, result: StepResult) -> None:
        """Compute and retire these parts; if that fails, each of them alone."""
        wanted, logit_rows = wanted_rows(parts)
        try:
            scores, sampled = self._compute(parts, decoding, wanted, logit_rows, result)
        except (torch.AcceleratorError, GroupLostError):
            raise  # the device's context or another shard is lost, and this process with it
        except Exception as error:
            whom = about(parts[0].sequence.spec) if len(parts) == 1 else {}
            _log.exception("a step of %d sequences failed", len(parts), extra=whom)
            short = relieve(error, self._device)
            if len(parts) == 1:
                failed = f"the forward pass failed ({type(error).__name__})"
                sentence = "no memory was left for a step of this request" if short else failed
                result.items.append(self._fail(parts[0].sequence, sentence))
                return
        else:
            self._retire(parts, wanted, scores, sampled, result)
            return
        result.repeated = True
        for number, part in enumerate(parts):
            self._attempt([part], int(number < decoding), result)

    def _compute(
        self,
        parts: list[Part],
        decoding: int,
        wanted: Wanted,
        logit_rows: list[int],
        result: StepResult,
    ) -> tuple[list[list[float]], Sampled]:
        """Log-probabilities of prompts, and next tokens. Changes no sequence: can be repeated."""
        began = self._clock()
        if self._faults is not None:
            self._faults.strike([part.sequence for part in parts])
        sequences = [part.sequence for part in wanted.next_tokens]
        masks = self._begin_masks(sequences)
        inputs = assemble(parts, decoding, logit_rows, self._tables, self._device)
        hidden = self._model.forward(inputs, self._cache)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        forwarded = self._clock()
        result.forward_s += forwarded - began
        count = len(wanted.next_tokens)
        scores = self._score(hidden[count:], [following for _, following in wanted.prompts])
        sampled = Sampled([], [], [])
        if count:
            sampled = self._sampler.sample(
                self._model.logits(hidden[:count]),
                [sequence.row for sequence in sequences],
                [sequence.index for sequence in sequences],
                [len(sequence.ids) for sequence in sequences],
                masks.wait() if masks is not None else None,
            )
        result.sample_s += self._clock() - forwarded
        return scores, sampled

    def _begin_masks(self, sequences: list[Sequence]) -> Pending | None:
        guides = [sequence.guide for sequence in sequences if sequence.guide is not None]
        return self._guidance.begin(guides) if self._guidance is not None and guides else None

    def _score(self, hidden: torch.Tensor, following: list[list[int]]) -> list[list[float]]:
        """Log-probability of each given token after its hidden row."""
        if not following:
            return []
        flat = torch.tensor([token for ids in following for token in ids], device=self._device)
        scores: list[float] = []
        for start in range(0, len(flat), _PROMPT_ROWS):
            rows = slice(start, start + _PROMPT_ROWS)
            logprobs = torch.log_softmax(self._model.logits(hidden[rows]), dim=-1)
            scores += logprobs.gather(1, flat[rows, None])[:, 0].tolist()
        ends = iter(scores)
        return [[next(ends) for _ in ids] for ids in following]

    def _retire(
        self,
        parts: list[Part],
        wanted: Wanted,
        scores: list[list[float]],
        sampled: Sampled,
        result: StepResult,
    ) -> None:
        """Enter a step's outcome into its sequences."""
        rows = [part.sequence.row for part in wanted.next_tokens]
        self._sampler.accept(rows, sampled.ids)
        for (part, _), logprobs in zip(wanted.prompts, scores, strict=True):
            part.sequence.prompt_logprobs += logprobs
        following = iter(zip(sampled.ids, sampled.logprobs, sampled.tops, strict=True))
        for part in parts:
            sequence = part.sequence
            sequence.computed = part.end
            self._turns += 1
            sequence.last_turn = self._turns
            if part.yields:
                result.items.append(self._take(sequence, *next(following)))
            else:
                tokens = SequenceTokens(sequence.id, sequence.attempt, sequence.index)
                result.items.append(Progress(tokens, sequence.computed))

    def _take(
        self, sequence: Sequence, token: int, logprob: float, top: list[tuple[int, float]]
    ) -> Progress:
        """A sequence's next token, and its end if this was the last."""
        scores = sequence.prompt_logprobs
        if not math.isfinite(logprob) or (scores and not math.isfinite(sum(scores))):
            return self._fail(sequence, "the model's output was not a number")
        guide = sequence.guide
        if guide is not None and not guide.take(token):
            return self._end(sequence) or self._fail(sequence, guide.error)
        index = sequence.index
        sequence.ids.append(token)
        finish = sequence.finish()
        tokens = SequenceTokens(
            sequence.id,
            sequence.attempt,
            index,
            [token],
            [logprob],
            [top] if sequence.spec.sampling.top_n_tokens > 0 else [],
            finish,
            sequence.take_started() if sequence.announce else None,
        )
        if finish:
            self._drop(sequence.id)
        return Progress(tokens, sequence.computed)
