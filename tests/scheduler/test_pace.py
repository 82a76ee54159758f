"""Prompts are read in pieces that hold nobody up, by a model of what steps cost."""

import random
from dataclasses import dataclass, field

import pytest

from common.messages import Progress, SequenceTokens, StepTiming
from scheduler.pace import FEWEST_TOKENS, Pace
from tests.scheduler.harness import House, sequence_id, started

STEP_TOKENS = 4096


def timing(prefill: int, decode: int, total_s: float) -> StepTiming:
    return StepTiming(prefill, decode, total_s, 0.0, 0.0, total_s)


@dataclass
class Machine:
    """A replica whose steps cost what they would."""

    decode_s: float = 0.02
    token_s: float = 0.0005
    growth: float = 0.0
    """How much dearer a token is after 10,000 others."""
    noise: float = 0.0
    position: int = 0
    choice: random.Random = field(default_factory=lambda: random.Random(1))

    def step(self, prefill: int, decode: int) -> StepTiming:
        token_s = self.token_s * (1 + self.growth * self.position / 10_000)
        took = (self.decode_s if decode else 0.0) + prefill * token_s
        self.position += prefill
        return timing(prefill, decode, took * (1 + self.choice.uniform(-self.noise, self.noise)))


@pytest.mark.parametrize("growth", [0.0, 3.0])
@pytest.mark.parametrize("noise", [0.0, 0.08])
@pytest.mark.parametrize("warmed", [True, False])
def test_streams_wait_no_longer_than_they_may(growth: float, noise: float, warmed: bool) -> None:
    machine = Machine(growth=growth, noise=noise)
    pace = Pace(0.2, STEP_TOKENS, machine.token_s * STEP_TOKENS if warmed else 0.0)
    pace.observe(machine.step(0, 8))
    stalls = []
    while machine.position < 16_000:
        step = machine.step(pace.chunk_tokens, 8)
        pace.observe(step)
        stalls.append(step.total_s)
    assert max(stalls) <= 0.2
    # What may be used is used: few steps are much shorter than they could be.
    assert sum(stall > 0.12 for stall in stalls) > 0.8 * len(stalls)


def test_without_a_bound_steps_are_whole() -> None:
    pace = Pace(0.0, STEP_TOKENS, 2.0)
    pace.observe(timing(4096, 3, 9.0))
    assert pace.chunk_tokens == STEP_TOKENS


def test_prompts_get_on_beside_slow_decoding() -> None:
    pace = Pace(0.2, STEP_TOKENS, 2.0)
    pace.observe(timing(0, 64, 0.5))
    assert pace.chunk_tokens == FEWEST_TOKENS
    assert Pace(0.2, 8, 100.0).chunk_tokens == 8


def test_a_dear_step_counts_at_once_and_is_forgotten() -> None:
    pace = Pace(0.2, STEP_TOKENS, 4.096)
    before = pace.chunk_tokens
    assert before == 160
    pace.observe(timing(100, 0, 1.0))
    assert pace.chunk_tokens == FEWEST_TOKENS
    for _ in range(20):
        pace.observe(timing(32, 0, 0.032))
    assert pace.chunk_tokens >= 0.9 * before


@pytest.mark.parametrize("total_s", [float("nan"), -1.0])
def test_nonsense_is_not_measured(total_s: float) -> None:
    pace = Pace(0.2, STEP_TOKENS, 4.096)
    pace.observe(timing(0, 1, total_s))
    pace.observe(timing(100, 1, total_s))
    assert pace.chunk_tokens == 160


def reading(house: House, sequence: int, read: int, total_s: float) -> None:
    """A step in which a prompt was read up to a token while others decoded."""
    record = house.record(sequence)
    before = len(record.spec.prompt_ids) - record.prefill_left
    progress = Progress(SequenceTokens(sequence, record.attempt, 0), read)
    house.report(progress, timing=timing(read - before, 1, total_s))


def test_the_worker_is_told_while_a_prompt_is_read() -> None:
    house = started(blocks=1001, max_batch_prefill_tokens=4096)
    house.submit(1)
    house.report(house.token(sequence_id(1), 7))
    long = house.submit(2, 3000)
    last = house.dispatches()[-1]
    assert [new.spec.id for new in last.add] == [long]
    assert (last.step_tokens, last.chunk_tokens) == (4096, 256)  # nobody has measured anything
    house.forget()
    reading(house, long, 256, 0.006 + 0.256)  # a millisecond a token
    (told,) = house.dispatches()
    assert (told.add, told.grants, told.release) == ([], [], [])
    assert 140 <= told.chunk_tokens <= 160
    house.forget()
    reading(house, long, 256 + told.chunk_tokens, 0.006 + told.chunk_tokens / 1000)
    assert house.dispatches() == []  # nothing new
    assert house.metric("millrace_worst_stall_seconds") == pytest.approx(0.262)
