"""What the worst step is said to cost on a CPU, where only a part of it is run."""

from itertools import count

import pytest

from common.settings import Settings
from tests.worker.driver import CPU, HistoryModel
from worker.costs import budget_bytes, measure
from worker.engine import Engine
from worker.warmup import Worst


class Makes:
    """Engines whose clock ticks once per look: each half of a step takes a tick."""

    def __init__(self, tick_s: float = 1.0) -> None:
        self.model = HistoryModel()
        self.tick_s = tick_s

    def __call__(self, blocks: int, longest_step_s: float = 0.0) -> Engine:
        ticks = count()
        return Engine(
            self.model,
            self.model.cache(blocks),
            blocks=blocks,
            device=CPU,
            clock=lambda: next(ticks) * self.tick_s,
            longest_step_s=longest_step_s,
        )


@pytest.mark.parametrize(
    ("worst", "steps", "seconds"),
    [
        (Worst(100, 3, 1000), [(1, 1, 1), (1, 1, 1, 97)], 1 + 1),
        (Worst(1280, 12, 1000), [(1,) * 4, (1, 1, 1, 1, 124)], 10 + 3),
        (Worst(64, 400, 1000), [(1,) * 4, (1, 1, 1, 1, 60)], 1 + 100),
    ],
)
def test_a_part_of_it_is_run_and_scaled_up(
    worst: Worst, steps: list[object], seconds: float
) -> None:
    make = Makes()
    cost = measure(make, worst, CPU)
    assert make.model.steps == steps
    assert cost.seconds == seconds
    assert cost.activation_bytes >= 0


def test_a_quick_one_is_run_again_because_the_first_time_takes_longer() -> None:
    make = Makes(tick_s=0.01)
    cost = measure(make, Worst(100, 3, 1000), CPU)
    assert make.model.steps == [(1, 1, 1), (1, 1, 1, 97)] * 2
    assert cost.seconds == pytest.approx(0.02)


def test_an_engine_knows_how_long_its_longest_step_will_be() -> None:
    assert Makes()(2, 12.5).longest_step_s == 12.5


def test_a_large_step_leaves_less_for_the_cache() -> None:
    settings = Settings(model_id="m", model_dir="/m")
    most = budget_bytes(settings, 0, CPU)
    assert most > 0
    assert budget_bytes(settings, 2 * most, CPU) < most / 2
