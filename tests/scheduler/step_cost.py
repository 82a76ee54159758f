"""What a step costs the scheduler: ``python -m tests.scheduler.step_cost [sequences [waiting]]``.

A turn with one StepReport of so many decoding sequences, from its frame to the frame of the
Dispatch, in microseconds of processor time. In every step one sequence ends, one that waits takes
its place, and a new one comes in, with priorities and deadlines of all kinds. The collector is
settled as in the process. Without arguments: the table over running and waiting sequences. All
sequences that were there from the start cross their block boundaries in the same steps, which is
what the worst ones are.
"""

import gc
import statistics
import sys
import time
from collections import deque
from typing import NamedTuple

from common.collector import settle
from common.messages import (
    Delivered,
    Progress,
    SequenceTokens,
    Started,
    Steady,
    StepReport,
    StepTiming,
    Submit,
)
from common.sockets import encode, frontend_identity
from tests.scheduler.harness import EPOCH, FRONTEND, spec, started

PROMPT_TOKENS = 500
STEPS = 600
RUNNING = (1, 8, 32, 64, 128, 256, 512)
WAITING = (0, 10, 100, 1000, 10_000)
PAIRS = (*((running, 10) for running in RUNNING), *((256, waiting) for waiting in WAITING))


class Cost(NamedTuple):
    """Of a step, in microseconds."""

    running: int
    waiting: int
    mean: float
    median: float
    p99: float
    worst: float


def submission(counter: int) -> Submit:
    """A sequence with a prompt of its own, of any priority, every third with a deadline."""
    prompt = [(counter * 7919 + i * i) % 50_000 for i in range(PROMPT_TOKENS)]
    deadline_s = 10_000.0 + counter % 50 if counter % 3 == 0 else 0.0
    return Submit(spec(counter, prompt, 2000), priority=counter % 5, timeout_s=deadline_s)


class Bench:
    """A house whose only replica decodes ``running`` sequences while others wait."""

    def __init__(self, running: int, waiting: int) -> None:
        self.house = started(
            blocks=running * 200 + 400,
            max_batch_prefill_tokens=10**9,
            max_total_tokens=4096,
            max_concurrent_requests=10**6,
            max_batch_size=running,
            waiting_served_ratio=0.0,
        )
        self._counter = 0
        self._step = 0
        for _ in range(running + waiting):
            self._submit()
        self.house.turn()
        self._replica = self.house.parts.replicas.get(0)
        assert self._replica is not None
        assert len(self._replica.running) == running
        assert len(self.house.parts.queue) == waiting

    def step(self) -> float:
        """One turn; what it took in microseconds."""
        house = self.house
        house.link.worker_inbox = deque([(house.identity(), self._report())])
        house.link.worker_sent.clear()
        house.link.frontend_sent.clear()
        house.clock.now += 0.005
        began = time.thread_time()
        house.loop.turn()
        for _, message in house.link.worker_sent + house.link.frontend_sent:
            encode(message)
        return (time.thread_time() - began) * 1e6

    def _submit(self) -> None:
        self._counter += 1
        frame = encode(submission(self._counter))
        self.house.link.frontend_inbox.append((frontend_identity(FRONTEND), frame))
        if len(self.house.link.frontend_inbox) >= 200:
            self.house.turn()

    def _report(self) -> bytes:
        """Every sequence gets a token; the first ends, its client has it, and another one asks."""
        self._step += 1
        assert self._replica is not None
        steady = Steady([], [], [], [], [], [])
        first, *others = self._replica.running.values()
        index = len(first.generated)
        end = SequenceTokens(first.id, 0, index, [index], [-0.5], [], "length")
        items = [Progress(end, PROMPT_TOKENS + index)]
        for record in others:
            index = len(record.generated)
            if index:
                steady.ids.append(record.id)
                steady.attempts.append(0)
                steady.indices.append(index)
                steady.tokens.append(index)
                steady.logprobs.append(-0.5)
                steady.computed_tokens.append(PROMPT_TOKENS + index)
            else:
                tokens = SequenceTokens(record.id, 0, 0, [0], [-0.5], started=Started(0.01))
                items.append(Progress(tokens, PROMPT_TOKENS))
        self._submit()
        delivered = Delivered(items[0].tokens.id, True, 5, 1.0, 0.1, 0.1, 0.8)
        self.house.link.frontend_inbox.append((frontend_identity(FRONTEND), encode(delivered)))
        timing = StepTiming(0, len(others) + 1, 0.004, 0.0003, 0.0002, 0.005)
        report = StepReport(EPOCH, 9, 1, self._step, items, timing=timing, steady=steady)
        return encode(report)


def measure(running: int, waiting: int, steps: int = STEPS) -> Cost:
    """What the turns cost."""
    bench = Bench(running, waiting)
    settle()
    took = []
    for number in range(steps):
        took.append(bench.step())
        if number % 150 == 0:
            bench.house.hello()
    bench.house.check()
    gc.unfreeze()
    took.sort()
    median, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return Cost(running, waiting, statistics.mean(took), median, p99, took[-1])


def table(pairs: tuple[tuple[int, int], ...] = PAIRS) -> list[Cost]:
    """Measure these numbers of running and waiting sequences, and print the costs."""
    sys.stdout.write("| running | waiting | mean, us | median | p99 |\n|---|---|---|---|---|\n")
    costs = []
    for running, waiting in pairs:
        cost = measure(running, waiting)
        sys.stdout.write(
            f"| {running} | {waiting} | {cost.mean:.0f} | {cost.median:.0f} | {cost.p99:.0f} |\n"
        )
        sys.stdout.flush()
        costs.append(cost)
    return costs


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    table(((given[0], given[1] if len(given) > 1 else 10),) if given else PAIRS)
