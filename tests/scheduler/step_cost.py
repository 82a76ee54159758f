"""What a step costs the scheduler: ``python -m tests.scheduler.step_cost [sequences]``.

A turn with one StepReport of so many decoding sequences, from its frame to the frame of the
Dispatch, in microseconds of processor time: mean, median, 99th percentile and worst. All sequences
cross their block boundaries in the same steps, which is what the worst ones are.
"""

import gc
import statistics
import sys
import time
from collections import deque

from common.messages import Progress, SequenceTokens, StepReport, StepTiming
from common.sockets import encode
from tests.scheduler.harness import EPOCH, House, sequence_id, started

PROMPT_TOKENS = 500
STEPS = 1500


def running(sequences: int) -> House:
    """A house whose only replica decodes so many sequences."""
    house = started(
        blocks=sequences * 200,
        max_batch_prefill_tokens=10**9,
        max_total_tokens=4096,
        max_concurrent_requests=10**6,
        waiting_served_ratio=0.0,
    )
    for counter in range(1, sequences + 1):
        house.submit(
            counter, [(counter * 7919 + i * i) % 50_000 for i in range(PROMPT_TOKENS)], 2000
        )
    assert len(house.added()) == sequences
    return house


def frame(sequences: int, index: int, known: int) -> bytes:
    """The report of a step that gave every sequence one token."""
    items = [
        Progress(SequenceTokens(sequence_id(c), 0, index, [c], [-0.5]), known)
        for c in range(1, sequences + 1)
    ]
    timing = StepTiming(0, sequences, 0.004, 0.0003, 0.0002, 0.005)
    return encode(StepReport(EPOCH, 9, 1, index + 1, items, timing=timing))


def main(sequences: int) -> None:
    house = running(sequences)
    identity = house.identity()
    took = []
    gc.collect()
    gc.freeze()
    for index in range(STEPS):
        house.link.worker_inbox = deque(
            [(identity, frame(sequences, index, PROMPT_TOKENS + index))]
        )
        house.link.worker_sent.clear()
        house.clock.now += 0.005
        began = time.thread_time()
        house.loop.turn()
        for _, message in house.link.worker_sent:
            encode(message)
        took.append((time.thread_time() - began) * 1e6)
        if index % 150 == 0:
            house.hello()
    house.check()
    took.sort()
    median, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    sys.stdout.write(
        f"{sequences} sequences: mean {statistics.mean(took):.0f} us, median {median:.0f}, "
        f"p99 {p99:.0f}, worst {took[-1]:.0f}\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
