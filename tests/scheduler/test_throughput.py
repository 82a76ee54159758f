"""Retry-After comes from what was measured."""

import pytest

from scheduler.throughput import Throughput


@pytest.mark.parametrize(
    ("waiting", "completed", "after_s", "expected"),
    [
        (0, 0, 0.0, 1.0),
        (9, 0, 0.5, 10.0),  # nothing measured yet: one per second
        (9, 19, 10.0, 5.0),
        (0, 99, 10.0, 1.0),
        (99, 0, 60.0, 60.0),
        (29, 59, 60.0, 30.0),
    ],
)
def test_retry_after(waiting: int, completed: int, after_s: float, expected: float) -> None:
    throughput = Throughput(100.0)
    assert throughput.retry_after_s(waiting, completed, 100.0 + after_s) == pytest.approx(expected)


def test_only_the_last_minute_counts() -> None:
    throughput = Throughput(0.0)
    for second in range(1, 121):
        throughput.sample(min(second, 60) * 10, float(second))
    assert throughput.retry_after_s(0, 600, 120.0) == 60.0
    assert len(throughput._samples) <= 62
