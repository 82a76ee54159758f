"""Workers and front ends that keep to the protocol, for the simulation.

The worker models its KV memory and refuses to compute from wrong contents. What a sequence
generates is a pure function of its ids, so that any loss, repetition or mix-up shows.
"""

import random
from collections.abc import Callable
from typing import Any

from common.messages import (
    BLOCK_TOKENS,
    PROTOCOL_VERSION,
    Accepted,
    Alive,
    Cancel,
    Delivered,
    Dispatch,
    Ended,
    Heartbeat,
    Hello,
    Missing,
    NewSequence,
    Progress,
    Ready,
    Recover,
    Rejected,
    Replay,
    Reset,
    SequenceSpec,
    SequenceTokens,
    Started,
    Status,
    StepReport,
    StepTiming,
    Submit,
    Tokens,
    WorkerFinish,
    frontend_of,
)
from common.sampling import SamplingParameters

_GREEDY = SamplingParameters()
Send = Callable[[Any], None]


def next_token(known: list[int]) -> int:
    """What follows these ids."""
    return (known[-1] * 31 + known[len(known) // 2] * 7 + len(known)) % 50_000


def expected_output(spec: SequenceSpec) -> list[int]:
    known = list(spec.prompt_ids)
    while len(known) < len(spec.prompt_ids) + spec.max_new_tokens:
        known.append(next_token(known))
        if known[-1] in spec.stop_token_ids:
            break
    return known[len(spec.prompt_ids) :]


class _Running:
    def __init__(self, new: NewSequence) -> None:
        self.new = new
        self.spec = new.spec
        self.known = new.spec.prompt_ids + new.generated_ids
        self.blocks = list(new.blocks)
        self.computed = new.cached_tokens
        self.generated = len(new.generated_ids)
        self.first = True


class FakeWorker:
    """One replica: takes Dispatches, steps, publishes, reports."""

    def __init__(self, replica: int, incarnation: int, blocks: int, send: Send) -> None:
        self.replica = replica
        self.incarnation = incarnation
        self.blocks = blocks
        self.send = send
        self.epoch = 0
        self.inbox: list[Any] = []
        self.running: dict[int, _Running] = {}
        self.memory: dict[tuple[int, int], tuple[int, ...]] = {}
        self.subscribed: set[int] = set()
        self.step_number = 0
        self.dispatch = 0
        self.step_tokens = 1
        send(Ready(PROTOCOL_VERSION, replica, incarnation, 1, blocks))

    def step(self) -> list[Tokens]:
        """One step; what is published, with the front end in the items' ids."""
        released = []
        while self.inbox:
            message = self.inbox.pop(0)
            if isinstance(message, Reset):
                self.running.clear()
                self.memory.clear()
                self.epoch, self.dispatch = message.epoch, 0
                self.send(
                    Ready(PROTOCOL_VERSION, self.replica, self.incarnation, 1, self.blocks,
                          self.epoch)
                )  # fmt: skip
            else:
                released += self._apply(message)
        items = self._forward()
        if not items and not released:
            self.send(Heartbeat(self.epoch, self.incarnation, self.step_number))
            return []
        self.step_number += 1
        frontends = {frontend_of(item.tokens.id) for item in items if item.tokens.ids}
        self.send(
            StepReport(
                self.epoch,
                self.incarnation,
                self.dispatch,
                self.step_number,
                items,
                released,
                sorted(frontends - self.subscribed),
                StepTiming(0, len(items), 0.01, 0.001, 0.001, 0.012) if items else None,
            )
        )
        published = [item.tokens for item in items if item.tokens.ids]
        return [
            Tokens(self.incarnation, self.step_number,
                   [tokens for tokens in published if frontend_of(tokens.id) == frontend])
            for frontend in frontends & self.subscribed
        ]  # fmt: skip

    def _apply(self, dispatch: Dispatch) -> list[int]:
        self.epoch = self.epoch or dispatch.epoch
        assert dispatch.epoch == self.epoch
        assert dispatch.number == self.dispatch + 1, "a Dispatch is missing"
        self.dispatch = dispatch.number
        self.step_tokens = dispatch.step_tokens
        for sequence in dispatch.release:
            self.running.pop(sequence, None)
        for new in dispatch.add:
            assert new.spec.id not in self.running
            assert new.cached_tokens < len(new.spec.prompt_ids) + len(new.generated_ids)
            assert new.cached_tokens % BLOCK_TOKENS == 0
            self.running[new.spec.id] = _Running(new)
        for grant in dispatch.grants:
            if grant.id in self.running:
                self.running[grant.id].blocks += grant.blocks
        return list(dispatch.release)

    def _forward(self) -> list[Progress]:
        budget = self.step_tokens
        items = []
        decoding_first = sorted(self.running.values(), key=lambda r: len(r.known) - r.computed > 1)
        for run in decoding_first:
            room = len(run.blocks) * BLOCK_TOKENS - run.computed
            count = min(budget, room, len(run.known) - run.computed)
            if count > 0:
                budget -= count
                items.append(self._compute(run, count))
        return items

    def _compute(self, run: _Running, count: int) -> Progress:
        for position in range(run.computed):
            assert self.memory[self._slot(run, position)] == tuple(run.known[: position + 1])
        for position in range(run.computed, run.computed + count):
            slot = self._slot(run, position)
            assert 0 < slot[0] < self.blocks
            others = [o for o in self.running.values() if o is not run and slot[0] in o.blocks]
            assert not others, "a block of another sequence would be overwritten"
            self.memory[slot] = tuple(run.known[: position + 1])
        run.computed += count
        index = run.generated
        ids: list[int] = []
        finish: WorkerFinish = ""
        started = None
        if run.computed == len(run.known):
            ids = [next_token(run.known)]
            run.known += ids
            run.generated += 1
            started = Started(run.new.queue_s, run.new.cached_tokens) if run.first else None
            run.first = False
            if ids[0] in run.spec.stop_token_ids:
                finish = "eos_token"
            elif run.generated == run.spec.max_new_tokens:
                finish = "length"
            if finish:
                del self.running[run.spec.id]
        tokens = SequenceTokens(
            run.spec.id, run.new.attempt, index, ids, [0.0] * len(ids), [], finish, started
        )
        return Progress(tokens, run.computed)

    @staticmethod
    def _slot(run: _Running, position: int) -> tuple[int, int]:
        return run.blocks[position // BLOCK_TOKENS], position % BLOCK_TOKENS


class _Live:
    def __init__(self, spec: SequenceSpec) -> None:
        self.spec = spec
        self.attempt = 0
        self.ids: list[int] = []
        self.held: dict[int, SequenceTokens] = {}


class FakeFrontend:
    """Submits, puts tokens in order, asks for gaps, resubmits; notes every end."""

    def __init__(self, number: int, send: Send) -> None:
        self.number = number
        self.send = send
        self.live: dict[int, _Live] = {}
        self.ends: dict[int, str] = {}
        self.outputs: dict[int, list[int]] = {}
        self.epoch = 0
        send(Hello(PROTOCOL_VERSION, number, 4000 + number))

    def submit(self, spec: SequenceSpec, **more: Any) -> None:
        self.live[spec.id] = _Live(spec)
        self.send(Submit(spec, **more))

    def cancel(self, sequence: int, reason: Any = "client_gone") -> None:
        if sequence in self.live:
            self.send(Cancel(sequence, reason))
            self._end(sequence, reason, success=reason == "stop_sequence")

    def beat(self) -> None:
        """Once a second: say that we live, and ask for everything that is live."""
        self.send(Alive(self.number))
        for live in self.live.values():
            self.send(Missing(live.spec.id, len(live.ids), live.attempt))

    def receive(self, message: Any) -> None:
        match message:
            case Tokens() | Replay():
                for item in message.items:
                    self._put(item)
            case Status():
                if self.epoch and self.epoch != message.epoch:
                    self.send(Hello(PROTOCOL_VERSION, self.number, 4000 + self.number))
                    self._resubmit(list(self.live))
                self.epoch = message.epoch
            case Recover():
                self._resubmit(message.ids)
            case Rejected():
                if message.id in self.live:
                    self._end(message.id, message.reason, success=False)
            case Ended():
                live = self.live.get(message.id)
                if live is not None and message.reason == "unknown":
                    self._resubmit([message.id])
                elif live is not None and live.attempt == message.attempt:
                    self._end(message.id, message.reason, success=False)
            case Accepted():
                pass

    def _put(self, item: SequenceTokens) -> None:
        live = self.live.get(item.id)
        if live is None or item.attempt != live.attempt:
            return
        live.held[item.index] = item
        while (first := min(live.held, default=None)) is not None and first <= len(live.ids):
            taken = live.held.pop(first)
            new = taken.ids[len(live.ids) - first :]
            live.ids += new
            if taken.finish and first + len(taken.ids) == len(live.ids):
                self._end(item.id, taken.finish, success=True)
                return
        if live.held:
            self.send(Missing(item.id, len(live.ids), live.attempt))

    def _resubmit(self, ids: list[int]) -> None:
        for sequence in ids:
            live = self.live.get(sequence)
            if live is not None:
                live.attempt += 1
                live.held.clear()
                self.send(Submit(live.spec, live.attempt, list(live.ids)))

    def _end(self, sequence: int, reason: str, *, success: bool) -> None:
        live = self.live.pop(sequence)
        assert sequence not in self.ends
        self.ends[sequence] = reason
        self.outputs[sequence] = live.ids
        self.send(Delivered(sequence, success, len(live.ids), 1.0, 0.1, 0.1, 0.8))


def random_spec(rng: random.Random, sequence: int, longest: int) -> SequenceSpec:
    """Few distinct beginnings, so that prefixes are shared."""
    shared = [rng.randrange(3) + 1] * (16 * rng.randrange(4))
    prompt = shared + [rng.randrange(100) for _ in range(rng.randrange(1, 40))]
    new = rng.randrange(1, longest - len(prompt))
    spec = SequenceSpec(sequence, prompt, new, _GREEDY)
    if rng.random() < 0.3:
        output = expected_output(spec)
        spec = SequenceSpec(sequence, prompt, new, _GREEDY, [rng.choice(output)])
    return spec
