"""One step after another: whose turn, launch, read back, retire.

Runs in the worker. Owns the steps under way; whom they may advance is the roster's. Takes
Dispatches, yields Progress; never waits for anybody. What goes wrong in one sequence ends that one:
a step that fails as a whole is repeated sequence by sequence. Knows nothing of sockets or epochs,
and of the device only that steps may be launched before the last one has been read
(``worker.flight``).
"""

import itertools
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from common.logs import about
from common.messages import Dispatch, Progress, SequenceTokens
from worker.errors import GroupLostError
from worker.faults import Faults
from worker.flight import Flight, StepResult
from worker.guidance import Guidance
from worker.interfaces import UNMINDFUL, CacheMemory, Model
from worker.kernels.sampling import SEEING, SamplingKernels
from worker.masks import Pending
from worker.pace import Pace
from worker.roster import Roster
from worker.runner import Device, HostRunner, MakeRunner
from worker.sampler import Chosen, Sampler
from worker.sequences import Sequence
from worker.shortage import relieve
from worker.speculation.speculation import Speculation
from worker.transfers import transfers_of
from worker.turns import Part, Turn, take_turns
from worker.watermark import USUAL, Rule

_log = logging.getLogger(__name__)


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
        sampling: SamplingKernels = SEEING,
        watermark: Rule = USUAL,
        make_runner: MakeRunner = HostRunner,
        longest_step_s: float = 0.0,  # what the largest possible step will take
        speculation: Speculation | None = None,
        adapters: tuple[str, ...] = (),  # digests of those that the model has
        memory: CacheMemory = UNMINDFUL,
    ) -> None:
        """Without ``guidance``, sequences with a grammar fail; ``faults`` are for tests only.

        ``memory`` is told when the cache is used.
        """
        self._cache = cache
        self._blocks = blocks
        self._device = device
        self._guidance = guidance
        self._faults = faults
        self._memory = memory
        self._model = model
        vocabulary = model.configuration.vocab_size
        sampler = Sampler(vocabulary, device, sampling, watermark)
        transfers = transfers_of(device)
        self._runner = make_runner(Device(model, cache, transfers, sampler, clock))
        self._flights: deque[Flight] = deque()
        self._ahead = 0
        self._released: list[int] = []
        self._step_tokens = 1
        self._pace = Pace(longest_step_s)
        self._speculation = speculation or Speculation(0)
        self._roster = Roster(
            self._runner,
            guidance,
            self._speculation,
            vocabulary=vocabulary,
            blocks=blocks,
            adapters=adapters,
            device=device,
            tell_later=lambda over: self._flights[-1].items.append(over),
        )
        self._steps = 0
        self._turns = 0

    @property
    def blocks(self) -> int:
        """KV blocks, block 0 included."""
        return self._blocks

    @property
    def model(self) -> Model:
        """What computes."""
        return self._model

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
        """Sequences, their rows, and steps under way: 0 when nothing runs."""
        return len(self._roster) + len(self._flights) + self._runner.rows_in_use

    @torch.inference_mode()
    def prepare(self) -> None:
        """After the warm-up: from now on steps are launched ahead, where that is possible."""
        self._runner.prepare()
        self._ahead = self._runner.ahead

    @torch.inference_mode()
    def apply(self, dispatch: Dispatch) -> None:
        """Release, add, grant. Never fails; sequences that cannot run become news."""
        self._step_tokens = max(1, dispatch.step_tokens)
        self._pace.bound(dispatch.max_stall_s, self._step_tokens)
        for sequence_id in dispatch.release:
            self._roster.drop(sequence_id)
            waiting = self._flights[-1].released if self._flights else self._released
            waiting.append(sequence_id)
        for new in dispatch.add:
            self._roster.add(new)
        for grant in dispatch.grants:
            self._roster.extend(grant)
        leased = [new.blocks for new in dispatch.add] + [grant.blocks for grant in dispatch.grants]
        self._memory.use(max(itertools.chain.from_iterable(leased), default=0))

    @torch.inference_mode()
    def reset(self) -> None:
        """Drop everything, news included; what is under way ends first."""
        while self._flights:
            flight = self._flights.popleft()
            if flight.launched is not None:
                flight.launched.read()
        self._roster.clear()
        self._released.clear()

    def take_news(self) -> tuple[list[Progress], list[int]]:
        """Ends found outside of steps, and released ids, since the last call."""
        released, self._released = self._released, []
        return self._roster.take_news(), released

    @torch.inference_mode()
    def step(self) -> StepResult | None:
        """One step's end, with the next under way if the device can be ahead; None: nobody can."""
        self._roster.meet_guides()
        while len(self._flights) <= self._ahead and not any(f.holds_back for f in self._flights):
            turn = self._next_turn()
            if turn is None or not turn.parts:
                break
            self._flights.append(self._launch(turn))
        if not self._flights:
            self._memory.rest()
            return None
        flight = self._flights.popleft()
        result = self._retire(flight)
        took_s = result.forward_s + result.sample_s
        self._pace.observe(took_s, flight.decoding, flight.turn.pieces)
        if not result.repeated:
            self._speculation.observe(took_s, flight.turn)
        result.piece_tokens = self._pace.piece_tokens
        return result

    # --- a step -------------------------------------------------------------------------------

    def _next_turn(self) -> Turn | None:
        """The next step, with drafts; None: what is under way has to be read before."""
        allowance = self._pace.allowance()
        turn = take_turns(self._roster.sequences, self._step_tokens, allowance)
        if self._flights:
            return None if self._speculation.waits(turn) else turn
        if turn.readers and self._runner.ahead:  # its drafts are rows of steps in which all decode
            return turn
        return self._speculation.extend(turn, self._step_tokens, allowance)

    def _launch(self, turn: Turn) -> Flight:
        """Have these parts computed. Those of a launch that failed are as they were before it."""
        flight = Flight(turn)
        parts = flight.parts
        try:
            if self._faults is not None:
                self._faults.strike([part.sequence for part in parts])
            flight.launched = self._runner.launch(flight, self._begin_masks(flight))
        except (torch.AcceleratorError, GroupLostError):
            raise  # the device's context or another shard is lost, and this process with it
        except Exception as error:
            whom = about(parts[0].sequence.spec) if len(parts) == 1 else {}
            _log.exception("a step of %d sequences failed", len(parts), extra=whom)
            short = relieve(error, self._device)
            failed = f"the forward pass failed ({type(error).__name__})"
            flight.failure = "no memory was left for a step of this request" if short else failed
            return flight
        for part in parts:
            sequence = part.sequence
            sequence.launched = part.end
            sequence.known += part.yields
            self._turns += 1
            sequence.last_turn = self._turns
        return flight

    def _begin_masks(self, flight: Flight) -> Pending | None:
        sequences = [part.sequence for part in flight.wanted.next_tokens]
        guides = [sequence.guide for sequence in sequences if sequence.guide is not None]
        return self._guidance.begin(guides) if self._guidance is not None and guides else None

    def _retire(self, flight: Flight) -> StepResult:
        """A step's end; or that of its parts, one by one, if its launch failed."""
        self._steps += 1
        result = StepResult(items=flight.items, behind=flight.behind, decode_tokens=flight.decoding)
        result.prefill_tokens = sum([part.tokens for part in flight.turn.readers])
        if flight.launched is not None:
            self._enter(flight, result)
        elif len(flight.parts) == 1 and not flight.turn.drafted:
            self._give_up(flight, result)
        else:
            result.repeated = True
            for number, part in enumerate(flight.parts):
                if not self._roster.holds(part.sequence):
                    continue
                alone = self._launch(Turn([part.without_drafts], int(number < flight.decoding)))
                if alone.launched is not None:
                    self._enter(alone, result)
                else:
                    self._give_up(alone, result)
        self._released += flight.released
        return result

    def _give_up(self, flight: Flight, result: StepResult) -> None:
        (part,) = flight.parts
        if self._roster.holds(part.sequence):
            result.items.append(self._roster.fail(part.sequence, flight.failure))

    def _enter(self, flight: Flight, result: StepResult) -> None:
        """A step's outcome, brought into its sequences."""
        assert flight.launched is not None
        outcome = flight.launched.read()
        result.forward_s += outcome.forward_s
        result.sample_s += outcome.sample_s
        for (part, _), logprobs in zip(flight.wanted.prompts, outcome.scores, strict=True):
            part.sequence.prompt_logprobs += logprobs
        following = iter(outcome.tokens)
        for part in flight.parts:
            sequence = part.sequence
            chosen = next(following) if part.yields else None
            if not self._roster.holds(sequence):
                continue
            sequence.computed = part.end
            if chosen is not None:
                self._report(sequence, self._take(sequence, chosen), result)
                if part.drafts:
                    self._learn(part, result)
                elif sequence.speculator is not None:
                    sequence.speculator.see(chosen[0][0])
            else:
                tokens = SequenceTokens(sequence.id, sequence.attempt, sequence.index)
                result.items.append(Progress(tokens, sequence.computed))

    def _report(self, sequence: Sequence, progress: Progress, result: StepResult) -> None:
        """A token; if it was the last and the sequence has been launched again, in two parts."""
        over = bool(progress.tokens.finish or progress.error)
        if not (over and sequence.in_flight):
            result.items.append(progress)
        elif progress.error:
            self._flights[-1].items.append(progress)
        else:
            result.ahead.append(progress.tokens)
            self._flights[-1].behind.append(progress)

    def _take(self, sequence: Sequence, chosen: list[Chosen]) -> Progress:
        """A sequence's next tokens, and its end if the last is among them."""
        scores = sequence.prompt_logprobs
        token, logprob, _ = chosen[0]
        if not math.isfinite(logprob) or (scores and not math.isfinite(sum(scores))):
            return self._roster.fail(sequence, "the model's output was not a number")
        guide = sequence.guide
        if guide is not None and not guide.take(token):
            return self._roster.end(sequence) or self._roster.fail(sequence, guide.error)
        tokens = sequence.take(chosen)
        if tokens.finish:
            self._roster.drop(sequence.id)
        return Progress(tokens, len(sequence.ids) - 1)

    def _learn(self, part: Part, result: StepResult) -> None:
        """Its drafts have been verified: what was computed for the others does not count."""
        sequence, drafted = part.sequence, len(part.drafts)
        known = len(sequence.ids)
        sequence.computed = sequence.launched = known - 1
        sequence.known = known
        accepted = max(known - part.start - 2, 0)
        result.drafted_tokens += drafted
        result.accepted_tokens += accepted
        if sequence.speculator is not None:
            sequence.speculator.learn(drafted, accepted, known)
