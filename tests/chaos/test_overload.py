"""Ten times more clients than there is room for; too few blocks; priorities and deadlines in a jam.

Prints the goodput under overload as a share of the peak: ``make overload``.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.load import Load, request
from tests.chaos.scene import Scene, scene
from tests.chaos.talk import together
from tests.processes import children_of

SEATS = 8
"""Sequences of a step."""
MOST = 2 * SEATS
"""Sequences alive: those and as many that wait."""
PEAK_S, JAM_S = 10.0, 20.0
GROWTH_MB = 120
"""What all processes together may grow by under ten times the load: connections cost something."""
FEW_KV_TOKENS = 1024

Tell = Callable[[str], None]


@pytest.fixture(scope="module")
def crowded() -> Iterator[Scene]:
    limits = ("--max-batch-size", str(SEATS), "--max-concurrent-requests", str(MOST))
    with scene(*limits, frontends=2) as made:
        yield made


def memory_mb(made: Scene) -> float:
    """Of all processes."""
    total = 0
    for pid in children_of(made.server.process.pid):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                total += int(line.split()[1])
    return total / 1024


def test_ten_times_the_capacity(crowded: Scene, tell: Tell) -> None:
    peak = Load(crowded.server, MOST)
    peak_rate = peak.run(PEAK_S)
    crowded.settle()
    before = memory_mb(crowded)
    jam = Load(crowded.server, 10 * MOST)
    jam_rate = jam.run(JAM_S)
    after = memory_mb(crowded)
    crowded.settle()
    report = jam.report
    waits = sorted(report.waits_s)
    tell(
        f"goodput at 10 x capacity ({10 * MOST} clients): {jam_rate:.0f} of {peak_rate:.0f} "
        f"tokens/s = {jam_rate / peak_rate:.0%}; {report.statuses[200]} answered, "
        f"{report.statuses[429]} refused, Retry-After {waits[0]:g} to {waits[-1]:g} s; "
        f"{len(report.served)} clients served; memory {before:.0f} -> {after:.0f} MB"
    )
    assert peak.report.wrong == [] == report.wrong
    assert set(report.statuses) == {200, 429}
    assert sum(report.statuses.values()) == report.asked, "every request has one answer"
    assert sorted(report.last) == list(range(10 * MOST))
    assert sorted(report.served) == list(range(10 * MOST)), "whoever comes back is served at last"
    assert after - before < GROWTH_MB


def test_priorities_and_deadlines_hold(crowded: Scene) -> None:
    """With all seats taken: the urgent one goes first, a hurried one is told in time."""
    order: list[str] = []
    lock = threading.Lock()

    def ask(name: str, headers: dict[str, str] | None = None, **fields: Any) -> int:
        body = request(len(order), **fields)
        answer = crowded.server.post("/v1/chat/completions", body, headers=headers)
        with lock:
            order.append(name)
        return answer.status

    def waiting() -> float:
        return crowded.metric("tgi_queue_size")

    def begin(name: str, **fields: Any) -> threading.Thread:
        thread = threading.Thread(target=ask, args=(name,), kwargs=fields, daemon=True)
        thread.start()
        return thread

    threads = [begin("seated", max_tokens=120) for _ in range(SEATS)]
    crowded.server.until(lambda: crowded.metric("tgi_batch_current_size") == SEATS, 60)
    threads += [begin("patient", priority=5, max_tokens=60) for _ in range(SEATS - 2)]
    crowded.server.until(lambda: waiting() == SEATS - 2, 60)
    threads.append(begin("urgent", priority=-5, max_tokens=2))
    crowded.server.until(lambda: waiting() == SEATS - 1, 60)
    assert ask("hurried", headers={"X-Request-Timeout-Ms": "300"}) == 408
    for thread in threads:
        thread.join(120)
    assert order.index("hurried") < order.index("patient")
    assert order.index("urgent") < order.index("patient")
    crowded.settle()


def test_too_few_blocks(survived: Survived) -> None:
    """Everybody is preempted now and then, goes on, and comes to the same end."""
    limits = ("--max-total-tokens", "512", "--max-input-tokens", "384")
    with scene(*limits, kv_tokens=FEW_KV_TOKENS) as house:
        outcomes = together(house.server, [*KINDS, *KINDS], lambda _: None)
        house.settle()
        preemptions = house.metric("millrace_preemptions_total")
    survived(f"{FEW_KV_TOKENS} tokens of KV for all; {preemptions:.0f} preemptions", outcomes)
    assert preemptions > 0
