"""Shards whose devices are ahead of the host: a leader and a follower say what one process says.

The devices are CPUs here, and nothing is recorded; what passes between the shards is all there.
"""

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.driver import RUNNERS, Driver
from tests.worker.models.comparing import CPU, prompt
from tests.worker.parallel.drivers import alone, together
from tests.worker.parallel.follower import AHEAD
from tests.worker.parallel.groups import Groups
from tests.worker.speculation.oracle import Oracle
from tests.worker.texts import SAMPLED
from tests.worker.tiny import write_tiny_llama
from worker.ahead.order import Order, StateChanges
from worker.ahead.runner import AheadRunner
from worker.ahead.state import SlotState
from worker.batch import Assembly
from worker.errors import GroupLostError
from worker.kernels.sampling import UNSEEN
from worker.parallel.leader import Leader
from worker.parallel.orders import Ahead, order_of, step_of
from worker.parcel import Parcel
from worker.speculation.speculation import Speculation
from worker.transfers import HostTransfers

NAME = "ahead-llama"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_tiny_llama(made / NAME, seed=3)
    return made


@pytest.fixture
def group_runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what computes the steps of the group."""

    def use(leader: Leader) -> None:
        runner = partial(AheadRunner, others=leader.go_ahead(), **AHEAD)
        monkeypatch.setitem(RUNNERS, "group", {"make_runner": runner, "sampling": UNSEEN})

    return use


def busy(driver: Driver) -> dict[int, tuple[list[int], list[float]]]:
    """Arrivals, prompts in chunks, scores, sampling, growth, leavers and one that comes back."""
    choice = random.Random(5)
    driver.add(0, prompt(75), 30, prefill_logprobs=True)
    driver.step()
    for number, sampling in enumerate(SAMPLED, 1):
        driver.dispatch(add=[driver.new(number, prompt(9 * number, number), 20, sampling=sampling)])
        for _ in range(choice.randrange(3)):
            driver.step()
    driver.step_tokens = 16
    driver.add(8, prompt(90, 8), 40, room=95)
    while len(driver.records[8].ids) < 3:
        driver.step()
    driver.release(2)
    driver.grant(8, 64)
    driver.add(9, prompt(3, 9), 5)
    for _ in range(6):
        driver.step()
    left = driver.records[2].ids[:]
    driver.add(2, prompt(18, 2), 20, sampling=SAMPLED[1], generated=left)
    driver.run()
    assert not any(record.error for record in driver.records.values())
    scored = driver.records[0].started
    assert scored is not None
    driver.records[0].logprobs += scored.prefill_logprobs
    return {n: (record.ids, record.logprobs) for n, record in driver.records.items()}


@pytest.mark.parametrize("drafts", [0, 3])
def test_two_shards_ahead_say_what_one_says(root: Path, group_runner: Any, drafts: int) -> None:
    """Also where the leader alone learns which drafts are right."""
    wanted = busy(alone(root / NAME))
    prompts = [prompt(75), *[prompt(9 * number, number) for number in range(1, 1 + len(SAMPLED))]]
    texts = [ids + wanted[number][0] for number, ids in enumerate(prompts)]
    speculation = Speculation(drafts, Oracle(texts, lies=0.2))
    with Groups(2) as groups, groups.led(root / NAME) as leader:
        group_runner(leader)
        leader.make_cache(8)  # as the start measures before it makes the one that stays
        driver = together(root / NAME, leader, runner="group", speculation=speculation)
        got = busy(driver)
        assert (driver.drafted > 20) == bool(drafts)
        assert driver.engine._runner._state.generation > 0  # all shards' states have grown
    assert got.keys() == wanted.keys()
    for number, (ids, logprobs) in wanted.items():
        assert got[number][0] == ids
        assert got[number][1] == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (MemoryError("too large"), GroupLostError, "in the leading shard: too large"),
        (torch.AcceleratorError("the device is lost"), torch.AcceleratorError, "the device"),
    ],
)
def test_a_step_that_fails_loses_the_group(
    error: Exception, raised: type[Exception], said: str
) -> None:
    """States would differ from now on: nobody tries again sequence by sequence."""

    class Crew:
        def send(self, message: Any) -> None:
            sent.append(message)

    sent: list[Any] = []
    ahead = Ahead(Crew(), None)  # type: ignore[arg-type]
    order = Order(StateChanges(3, 2, torch.zeros(2, 0).numpy()), 1, 0, 1, (4,))
    with (
        pytest.raises(raised, match=said),
        ahead.follow(order),
    ):
        raise error
    assert len(sent) == 1


@pytest.mark.parametrize("mixed", [False, True])
def test_an_order_survives_the_way(mixed: bool) -> None:
    numbers = iter(range(1000))

    def some(*shape: int) -> Any:
        count = torch.Size(shape).numel()
        return torch.tensor([next(numbers) for _ in range(count)]).view(shape).numpy()

    changes = StateChanges(9, 4, some(2, 3))
    if mixed:
        arrays = (some(7), some(7), some(7), some(3, 5), some(3), some(2))
        lengths = tuple(arrays[4].tolist())
        assembly = Assembly(arrays, lengths, (1, 1, 5), 2, ())
        order = Order(changes, 2, 4, assembly=assembly, slots=(3, 5))
    else:
        order = Order(changes, 2, 0, 4, (17, 30), True, 1)
    got = order_of(step_of(order))
    assert (got.chosen, got.scored, got.size) == (order.chosen, order.scored, order.size)
    assert (got.lengths, got.adapted, got.slots) == (order.lengths, order.adapted, order.slots)
    assert got.drafts == order.drafts
    assert (got.changes.slots, got.changes.width) == (9, 4)
    assert (got.changes.numbers == changes.numbers).all()
    if not mixed:
        assert got.assembly is None
        return
    assert got.assembly is not None
    assert (got.assembly.lengths, got.assembly.counts) == (lengths, (1, 1, 5))
    assert got.assembly.decoding == 2
    for sent, received in zip(assembly.arrays, got.assembly.arrays, strict=True):
        assert (sent == received).all()


def test_what_is_noted_keeps_its_meaning_when_the_state_grows() -> None:
    """It is not sent by itself: other shards would not have it."""
    state, twin = (SlotState(3, 2, 5, CPU) for _ in range(2))
    for one in (state, twin):
        one.enter(1, 70, 12, 9)
        one.set_blocks(1, 0, [4, 5])
    apply(state)
    for one in (state, twin):
        one.enter(2, 80, 22, 19)
        one.set_blocks(2, 1, [6])
        one.set_rows([2, 1, 1], 4, [(1, 70)])
    state.resize(9, 3)
    twin.resize(9, 3)
    state.set_blocks(8, 2, [7])
    twin.set_blocks(8, 2, [7])
    apply(state)
    apply(twin)
    assert torch.equal(state._all, twin._all)
    rows = state.decode_rows(4)
    assert rows.sequences.tolist() == [2, 1, 1, 0]
    assert (rows.offsets.tolist(), rows.drafts[2]) == ([0, 0, 1, 0], 70)
    assert state.tables[1].tolist() == [4, 5, 0]
    assert state.tables[2].tolist() == [0, 6, 0]
    assert state.tables[8].tolist() == [0, 0, 7]
    assert (state.last_tokens[2], state.known[1], state.prompts[2]) == (80, 12, 19)
    assert not state.pending().numbers.size
    state.set_rows([2], 1)
    apply(state)
    assert not state.decode_rows(4).offsets.any()


def apply(state: SlotState) -> None:
    parcel = Parcel()
    sent = parcel.integers(state.pending().numbers)
    parcel.send(HostTransfers())
    state.apply(sent)
