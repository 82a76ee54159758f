"""A worker without a model: the real loop and sockets around an engine that answers at once.

usage: python -m bench.fake_worker [--replica 0] [--blocks 60000] [--step-ms 0]

Everything that a worker costs the pipeline is here (receive, apply, publish, report), nothing that
a model costs. What it generates is a pure function of the position: ``token_at``. With
``--step-ms`` a step begins no sooner than so many milliseconds after the one before, as a model
would have it.
"""

import argparse
import gc
import os
import secrets
import time
from collections.abc import Callable

import zmq

from common import logs
from common.messages import BLOCK_TOKENS, Dispatch, NewSequence, Progress, SequenceTokens, Started
from common.settings import load
from worker.flight import StepResult
from worker.link import SocketLink
from worker.loop import Identity, Loop
from worker.stop import StopSignal

FIRST_TOKEN, TOKENS = 300, 1500
"""Ordinary tokens of the built-in model's vocabulary."""


def token_at(index: int) -> int:
    """What every sequence generates there."""
    return FIRST_TOKEN + index * 7 % TOKENS


class _Running:
    __slots__ = ("computed", "index", "known", "new", "room")

    def __init__(self, new: NewSequence) -> None:
        self.new = new
        self.index = len(new.generated_ids)
        self.known = len(new.spec.prompt_ids) + self.index
        self.computed = new.cached_tokens
        self.room = len(new.blocks) * BLOCK_TOKENS


class FakeEngine:
    """What ``worker.loop`` asks of an engine. Reads a prompt in one step, chunks aside."""

    def __init__(self, blocks: int, step_s: float, clock: Callable[[], float]) -> None:
        self.blocks = blocks
        self.steps = 0
        self.longest_step_s = 0.0
        self.prefix_caching = True
        self._step_s = step_s
        self._clock = clock
        self._due = 0.0
        self._running: dict[int, _Running] = {}
        self._released: list[int] = []
        self._step_tokens = 1

    def apply(self, dispatch: Dispatch) -> None:
        """Release, add, grant."""
        self._step_tokens = dispatch.step_tokens
        for sequence in dispatch.release:
            self._running.pop(sequence, None)
            self._released.append(sequence)
        for new in dispatch.add:
            self._running[new.spec.id] = _Running(new)
        for grant in dispatch.grants:
            running = self._running.get(grant.id)
            if running is not None:
                running.room += len(grant.blocks) * BLOCK_TOKENS

    def reset(self) -> None:
        """Drop everything."""
        self._running.clear()
        self._released.clear()

    def take_news(self) -> tuple[list[Progress], list[int]]:
        """Released ids."""
        released, self._released = self._released, []
        return [], released

    def step(self) -> StepResult | None:
        """Advance whoever has room."""
        able = [x for x in self._running.values() if x.room > x.computed]
        if not able:
            return None
        if self._step_s:
            time.sleep(max(0.0, self._due - self._clock()))
            self._due = max(self._due + self._step_s, self._clock())
        self.steps += 1
        result = StepResult()
        reading = []
        for running in able:
            if running.computed == running.known - 1:
                self._emit(running, result)
                result.decode_tokens += 1
            else:
                reading.append(running)
        left = self._step_tokens - result.decode_tokens
        for running in reading:
            count = min(running.known, running.room) - running.computed
            count = min(count, left)
            if count <= 0:
                break
            left -= count
            result.prefill_tokens += count
            if running.computed + count == running.known:
                running.computed += count - 1
                self._emit(running, result)
            else:
                running.computed += count
                tokens = SequenceTokens(running.new.spec.id, running.new.attempt, running.index)
                result.items.append(Progress(tokens, running.computed))
        return result

    def _emit(self, running: _Running, result: StepResult) -> None:
        spec, index = running.new.spec, running.index
        over = index + 1 >= spec.max_new_tokens
        started = None
        if not index:
            started = Started(running.new.queue_s, running.new.cached_tokens)
        tokens = SequenceTokens(
            spec.id,
            running.new.attempt,
            index,
            [token_at(index)],
            [-0.693147],
            [],
            "length" if over else "",
            started,
        )
        running.index += 1
        running.known += 1
        running.computed += 1
        result.items.append(Progress(tokens, running.computed))
        if over:
            del self._running[spec.id]


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description="a worker that answers at once")
    parser.add_argument("--replica", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=60_000)
    parser.add_argument("--step-ms", type=float, default=0.0)
    options = parser.parse_args()
    settings = load()
    logs.set_up("worker", json_output=False, level=settings.log_level)
    stop = StopSignal(settings.graceful_termination_timeout)
    incarnation = secrets.randbits(63)
    context = zmq.Context()
    link = SocketLink(
        context,
        settings.runtime_dir,
        replica=options.replica,
        incarnation=incarnation,
        wakeup_fds=[stop.fd],
    )
    identity = Identity(options.replica, incarnation, os.getpid(), "float32", "cpu")
    engine = FakeEngine(options.blocks, options.step_ms / 1000, time.monotonic)
    gc.collect()
    gc.freeze()
    try:
        Loop(engine, link, identity, time.monotonic).run(stop)  # type: ignore[arg-type]
    finally:
        link.close()
        context.term()


if __name__ == "__main__":
    main()
