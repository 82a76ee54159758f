"""Prompts are read in pieces that hold nobody up: the engine's turns over a model of what costs.

The clock is the machine's: a step takes what its parts cost, and nothing else takes time.
"""

import random
from dataclasses import dataclass, field

import pytest

from worker.pace import FEWEST_TOKENS, Allowance, Pace, units_of

STEP_TOKENS = 4096
MAX_STALL_S = 0.2


@dataclass
class Machine:
    """What steps cost, in seconds."""

    decode_s: float = 0.02
    """Of a step for the decoding sequences."""
    token_s: float = 0.0005
    """Of a prompt's first token."""
    slope: float = 0.0
    """How much dearer a token is for each before it, as a share of the first."""
    noise: float = 0.0
    choice: random.Random = field(default_factory=lambda: random.Random(1))

    def cost_s(self, decoding: int, pieces: list[tuple[int, int]]) -> float:
        read = sum(units_of(count, start, self.slope) for start, count in pieces)
        took = (self.decode_s if decoding else 0.0) + read * self.token_s
        return took * (1 + self.choice.uniform(-self.noise, self.noise))


@dataclass
class Room:
    """A pace at work: others decode all the time, prompts come one after another."""

    machine: Machine
    pace: Pace
    stalls_s: list[float] = field(default_factory=list)
    smallest: list[bool] = field(default_factory=list)
    """Whether each piece was as small as pieces may be."""

    def decode(self, steps: int = 5) -> None:
        for _ in range(steps):
            self.pace.observe(self.machine.cost_s(8, []), 8, [])

    def read(self, length: int, cached: int = 0) -> None:
        """A prompt, from its cached tokens on."""
        while cached < length:
            allowance = self.pace.allowance()
            assert allowance is not None
            tokens = allowance.take(cached, min(STEP_TOKENS - 8, length - cached))
            assert tokens > 0
            took = self.machine.cost_s(8, [(cached, tokens)])
            self.pace.observe(took, 8, [(cached, tokens)])
            self.stalls_s.append(took)
            self.smallest.append(tokens <= FEWEST_TOKENS)
            cached += tokens

    def late(self) -> float:
        """The share of steps that took too long, though there were smaller ones."""
        return sum(
            took > MAX_STALL_S and not least
            for took, least in zip(self.stalls_s, self.smallest, strict=True)
        ) / len(self.stalls_s)


def room(machine: Machine, *, warmed: bool = True) -> Room:
    pace = Pace(machine.token_s * STEP_TOKENS if warmed else 0.0)
    pace.bound(MAX_STALL_S, STEP_TOKENS)
    made = Room(machine, pace)
    made.decode()
    return made


MACHINES = {
    "all tokens alike": Machine(),
    "attention": Machine(slope=0.0008),
    "much attention": Machine(slope=0.004),
    "noise": Machine(slope=0.0008, noise=0.08),
    "a GPU": Machine(decode_s=0.01, token_s=0.00002, slope=0.0002, noise=0.05),
    "slow decoding": Machine(decode_s=0.12, slope=0.0008),
    "too slow for anything": Machine(decode_s=0.15, token_s=0.005, slope=0.001),
}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("warmed", [True, False])
def test_streams_wait_no_longer_than_they_may(name: str, warmed: bool) -> None:
    made = room(MACHINES[name], warmed=warmed)
    for _ in range(3):
        made.read(16_000)
        made.decode()
    assert made.late() <= 0.01
    # What may be used is used: few steps are much shorter than they could be.
    full = [took for took, least in zip(made.stalls_s, made.smallest, strict=True) if not least]
    assert sum(took > 0.1 for took in full) >= 0.8 * len(full)


@pytest.mark.parametrize("seed", range(4))
def test_prompts_of_all_lengths_with_and_without_cached_beginnings(seed: int) -> None:
    """A turn of a long conversation begins deep: its tokens are dear from the first one on."""
    choice = random.Random(seed)
    made = room(Machine(slope=0.0008, noise=0.08, choice=choice))
    made.read(12_000)  # once from one end to the other
    made.stalls_s.clear(), made.smallest.clear()
    for _ in range(60):
        length = choice.choice([100, 400, 2_000, 9_000, 12_000])
        cached = choice.choice([0, length // 2, length - 90]) // 16 * 16
        made.read(length, cached)
        made.decode(choice.randrange(3))
    assert made.late() <= 0.01


def test_what_is_read_while_nobody_decodes_teaches_too() -> None:
    machine = Machine(slope=0.002)
    made = room(machine)
    for start in (0, 4096, 8192):
        made.pace.observe(machine.cost_s(0, [(start, 4096)]), 0, [(start, 4096)])
    made.read(6_000)
    assert made.late() == 0


def test_a_machine_that_gets_slower_is_noticed_at_once() -> None:
    machine = Machine(slope=0.0008)
    made = room(machine)
    made.read(4_000)
    machine.token_s *= 3
    made.stalls_s.clear(), made.smallest.clear()
    made.read(4_000)
    assert made.late() * len(made.stalls_s) == 1  # that could not be foreseen
    machine.token_s /= 3
    made.read(8_000)
    assert made.stalls_s[-2] > 0.12, "it is forgotten again"


def test_the_bound() -> None:
    pace = Pace(2.0)
    assert pace.allowance() is None
    assert pace.piece_tokens == 0
    pace.bound(0.2, STEP_TOKENS)
    assert pace.piece_tokens == 327  # 0.16 s of the 2 s for 4096
    pace.bound(0.0, STEP_TOKENS)
    assert pace.allowance() is None


def test_prompts_get_on_beside_slow_decoding() -> None:
    pace = Pace(2.0)
    pace.bound(0.2, STEP_TOKENS)
    pace.observe(0.19, 64, [])
    assert pace.piece_tokens == FEWEST_TOKENS
    for _ in range(30):  # the bound is lost
        pace.observe(0.5, 64, [])
    assert 500 <= pace.piece_tokens <= 512  # half of that at 2 s for 4096
    pace.observe(99.0, 64, [(0, 64)])
    assert pace.piece_tokens == 128
    pace.bound(0.2, 8)
    assert pace.piece_tokens == 8


def test_an_allowance_is_shared_by_the_prompts_of_a_step() -> None:
    allowance = Allowance(100.0, 0.0)
    assert [allowance.take(0, 70), allowance.take(500, 70), allowance.take(0, 70)] == [70, 30, 0]
    dear = Allowance(100.0, 0.01)
    first = dear.take(1000, 1000)
    assert first == FEWEST_TOKENS  # 9 tokens there would cost as much
    assert dear.take(0, 1000) == 0
    little = Allowance(0.0, 0.0)
    assert [little.take(0, 20), little.take(0, 20), little.take(0, 20)] == [20, 12, 0]


@pytest.mark.parametrize("slope", [0.0, 0.0001, 0.01])
@pytest.mark.parametrize("position", [0, 1000, 100_000])
@pytest.mark.parametrize("units", [50.0, 5_000.0, 500_000.0])
def test_a_piece_is_as_long_as_it_may_be(slope: float, position: int, units: float) -> None:
    tokens = Allowance(units, slope).take(position, 10**9)
    assert tokens == FEWEST_TOKENS or units_of(tokens, position, slope) <= units * (1 + 1e-9)
    assert units_of(tokens + 1, position, slope) >= units * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_what_a_busy_moment_said_of_a_few_short_prompts_is_corrected(seed: int) -> None:
    """Short pieces whose costs say nothing: neither of the slope, nor of the next long prompt."""
    choice = random.Random(seed)
    made = room(Machine(noise=0.9, choice=choice))
    for _ in range(8):
        made.read(choice.randrange(20, 120))
    made.machine.noise = 0.0
    made.decode(40)
    made.stalls_s.clear()
    made.read(20_000)
    assert max(made.stalls_s) <= 1.25 * MAX_STALL_S
    assert sorted(made.stalls_s)[len(made.stalls_s) // 2] > 0.1


def test_what_is_not_needed_for_prompts_may_be_nothing() -> None:
    allowance = Allowance(100.0, 0.01)
    taken = allowance.take(0, 40)
    assert allowance.spare(1000, 4) == 4
    assert units_of(taken, 0, 0.01) + units_of(4, 1000, 0.01) == pytest.approx(92.08)
    assert allowance.spare(1000, 4) == 0
    assert Allowance(0.0, 0.0).spare(0, 4) == 0
