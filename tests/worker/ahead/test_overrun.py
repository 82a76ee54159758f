"""What a step ahead of the host may do to others: nothing. Blocks, ends, errors, readers."""

import random

import pytest
import torch

from common.messages import BLOCK_TOKENS, Dispatch, Grant, NewSequence, Reset, SequenceSpec
from common.sampling import SamplingParameters
from tests.worker.driver import CPU, GREEDY, RUNNERS, HistoryModel, Record, fake_driver
from tests.worker.list_link import ALICE, Clock, ListLink
from tests.worker.reported import items_of, progress_of
from tests.worker.texts import SAMPLED
from worker.engine import Engine
from worker.loop import Identity, Loop

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


class NotedModel(HistoryModel):
    """Notes which blocks each launched step writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[set[int]] = []

    def forward(self, inputs, cache):
        hidden = super().forward(inputs, cache)
        self.written.append({slot // BLOCK_TOKENS for slot in inputs.slots.tolist()} - {0})
        return hidden


class World:
    """A loop and a scheduler that hands every block on as soon as a report lets it."""

    def __init__(self, blocks: int = 24, runner: str = "recorded") -> None:
        self.clock = Clock()
        self.link = ListLink(self.clock, subscriptions=set(range(10)))
        self.model = NotedModel()
        self.engine = Engine(
            self.model,
            HistoryModel.cache(blocks),
            blocks=blocks,
            device=CPU,
            clock=self.clock,
            **RUNNERS[runner],
        )
        self.engine.prepare()
        self.loop = Loop(self.engine, self.link, Identity(0, 9, 1), self.clock, 0.0)
        self.free = list(range(1, blocks))
        self.leases: dict[int, list[int]] = {}
        self.computed: dict[int, int] = {}
        self.number = 0
        self.reported: dict[int, list[int]] = {}
        self.published: dict[int, list[int]] = {}
        self.ended: list[int] = []

    @property
    def under_way(self) -> set[int]:
        """Blocks that steps which have been launched and not reported write to."""
        return set().union(*self.model.written[self.engine.steps :])

    def lease(self, count: int) -> list[int]:
        """The latest freed first, to be as careless as possible."""
        taken = [self.free.pop() for _ in range(count)]
        assert not self.under_way & set(taken)
        return taken

    def new(self, number: int, prompt: list[int], count: int, **spec) -> NewSequence:
        blocks = self.leases[number] = self.lease(-(-len(prompt) // BLOCK_TOKENS))
        self.computed[number] = 0
        return NewSequence(SequenceSpec(number, prompt, count, GREEDY, **spec), 0, [], blocks)

    def turn(self, **changes) -> None:
        self.number += 1
        grants = []
        for number, blocks in self.leases.items():
            room = len(blocks) * BLOCK_TOKENS - self.computed[number]
            if room < 4 and self.free and number not in changes.get("release", ()):
                granted = self.lease(1)
                blocks += granted
                grants.append(Grant(number, granted))
        self.link.inbox.append(Dispatch(1, self.number, 40, grants=grants, **changes))
        self.turn_only()

    def turn_only(self) -> None:
        self.link.reports.clear()
        self.link.published.clear()
        self.loop.turn()
        for _, message in self.link.published:
            for tokens in items_of(message):
                self.published.setdefault(tokens.id, []).extend(tokens.ids)
        for report in self.link.reports:
            for item in progress_of(report):
                number = item.tokens.id
                self.reported.setdefault(number, []).extend(item.tokens.ids)
                self.computed[number] = item.computed_tokens
                if item.tokens.finish or item.error:
                    self.ended.append(number)
                    self.free += self.leases.pop(number)
            for number in getattr(report, "released", []):
                self.free += self.leases.pop(number, [])


def test_no_block_is_handed_on_that_a_step_under_way_writes_to():
    choice = random.Random(4)
    world = World()
    whole: dict[int, list[int]] = {}
    dropped: set[int] = set()
    for tick in range(240):
        add, release = [], []
        number = len(whole)
        if tick < 200 and len(world.free) > 8 and choice.random() < 0.5:
            prompt = choice.choices(range(50), k=choice.randrange(1, 40))
            ids = whole[number] = world.model.continuation(prompt, choice.randrange(1, 20))
            del ids[ids.index(ids[-1]) + 1 :]
            add.append(world.new(number, prompt, 60, stop_token_ids=[ids[-1]]))
        running = [other for other in world.leases if other not in dropped and other != number]
        if running and choice.random() < 0.08:
            release.append(choice.choice(running))
            dropped.update(release)
        world.turn(add=add, release=release)
    assert not world.leases
    assert sorted(world.free) == list(range(1, 24))
    assert world.engine.held == 0
    assert len(whole) > 60
    assert len(dropped) > 10
    for number, ids in whole.items():
        reported = world.reported.get(number, [])
        assert reported == world.published.get(number, [])
        assert reported == ids[: len(reported)]
        if number not in dropped:
            assert reported == ids
            assert world.ended.count(number) == 1


def test_the_last_token_is_published_at_once_and_its_end_reported_with_the_overrun():
    world = World()
    stop = world.model.continuation(PROMPT, 2)[1]
    world.turn(add=[world.new(ALICE << 32, PROMPT, 9, stop_token_ids=[stop])])
    world.turn_only()
    ((_, message),) = world.link.published
    assert (message.items[0].ids, message.items[0].finish) == ([stop], "eos_token")
    assert world.leases  # the scheduler does not know
    assert world.ended == []
    assert len(world.model.steps) == 3  # one for nothing
    world.turn_only()
    assert world.link.published == []
    assert world.ended == [ALICE << 32]
    assert world.leases == {}


def test_who_did_not_get_a_last_token_is_named_in_the_report_that_has_it():
    world = World()
    stop = world.model.continuation(PROMPT, 2)[1]
    world.turn(add=[world.new(ALICE << 32, PROMPT, 9, stop_token_ids=[stop])])
    world.link.subscriptions.clear()
    world.turn_only()
    (report,) = world.link.reports
    assert (report.items, report.undelivered) == ([], [])
    world.turn_only()
    (report,) = world.link.reports
    assert report.items[0].tokens.finish == "eos_token"
    assert report.undelivered == [ALICE]


def test_one_that_ends_by_its_count_is_not_overrun():
    world = World()
    world.turn(add=[world.new(0, PROMPT, 3)])
    for _ in range(4):
        world.turn_only()
    assert world.model.steps == [(8,), (1,), (1,)]
    assert world.ended == [0]


def test_a_step_that_fails_while_another_is_under_way_fails_one_sequence_only():
    world = World()
    world.model.fail_on = {49}
    world.turn(add=[world.new(0, PROMPT, 12), world.new(1, PROMPT[1:], 12)])
    world.turn(add=[world.new(2, [*PROMPT, 49], 12)])
    for _ in range(30):
        world.turn()
    assert sorted(world.ended) == [0, 1, 2]
    assert world.reported.get(2, []) == []
    for number, prompt in ((0, PROMPT), (1, PROMPT[1:])):
        expected = world.model.continuation(prompt, 12)
        if 49 not in expected[:-1]:
            assert world.reported[number] == expected
    assert world.engine.held == 0


def test_who_is_released_before_a_failed_step_is_repeated_takes_no_part():
    driver = fake_driver(runner="recorded")
    driver.dispatch(add=[driver.new(0, PROMPT, 9), driver.new(1, [*PROMPT, 12], 9)])
    driver.model.fail_on = {driver.model.next([*PROMPT, 12])}
    driver.step()
    driver.release(1)
    driver.step()
    assert driver.model.steps[1:] == [(1, 1), (1,)]  # the one that failed, and the other's
    driver.run()
    assert driver.released == [1]
    assert driver.records[0].finish == "length"


def test_who_comes_back_before_its_failed_step_is_told_of_does_not_fail():
    driver = fake_driver(runner="recorded")
    whole = driver.model.continuation(PROMPT, 9)
    driver.add(0, PROMPT, 9)
    driver.model.fail_on = {whole[0]}
    driver.step()
    driver.model.fail_on.clear()
    again = driver.new(0, PROMPT, 9, generated=whole[:1])
    driver.dispatch(release=[0], add=[again])
    driver.run()
    assert (driver.records[0].ids, driver.records[0].finish) == (whole, "length")


def test_a_lost_device_is_noticed_when_its_step_is_read(monkeypatch):
    driver = fake_driver(runner="recorded")
    driver.add(0, PROMPT, 9)
    driver.step()

    def lost(*_):
        raise torch.AcceleratorError("illegal memory access")

    monkeypatch.setattr(driver.engine._flights[0].launched, "read", lost)
    with pytest.raises(torch.AcceleratorError):
        driver.step()


def test_reset_waits_for_what_is_under_way_and_drops_it(monkeypatch):
    world = World()
    world.turn(add=[world.new(0, PROMPT, 9)])
    (flight,) = world.engine._flights
    waited = []
    monkeypatch.setattr(flight.launched, "read", lambda: waited.append(flight))
    world.link.inbox.append(Reset(2))
    world.turn_only()
    assert waited == [flight]
    assert world.engine.held == 0
    assert [getattr(report, "items", []) for report in world.link.reports] == [[]]


@pytest.mark.parametrize("sampling", SAMPLED)
def test_what_is_sampled_is_what_the_host_would_sample(sampling):
    host, ahead = fake_driver(runner="host"), fake_driver(runner="recorded")
    for driver in (host, ahead):
        driver.add(0, PROMPT, 20, sampling=sampling)
    host.run()
    while len(ahead.records[0].ids) < 9:
        ahead.step()
    ahead.release(0)
    ahead.add(0, PROMPT, 20, sampling=sampling, generated=ahead.records[0].ids[:])
    ahead.run()
    assert ahead.records[0].ids == host.records[0].ids


def test_who_decodes_while_the_state_grows_keeps_its_blocks():
    driver = fake_driver(runner="ahead")  # which has room for two short ones
    driver.add(0, PROMPT, 20)
    for _ in range(3):
        driver.step()
    counts = {1: 20, 2: 60, 3: 30}
    driver.dispatch(add=[driver.new(number, [number], count) for number, count in counts.items()])
    driver.run()
    assert driver.records[0].ids == driver.model.continuation(PROMPT, 20)
    for number, count in counts.items():
        assert driver.records[number].ids == driver.model.continuation([number], count)


def test_after_recording_rows_are_told_anew():
    driver = fake_driver(runner="recorded")
    for number in range(2):  # of the same slot
        driver.add(number, PROMPT, 5)
        driver.run()
        assert driver.records[number].ids == driver.model.continuation(PROMPT, 5)
        driver.engine.prepare()


def test_one_that_begins_with_its_last_token_goes_on_from_it():
    """All tokens before it are cached: its first step is computed from the device's state."""
    driver = fake_driver(runner="recorded")
    ids = [*PROMPT, *PROMPT]
    whole = driver.model.continuation(ids, 5)
    driver.add(0, ids, 3)
    driver.run()
    driver.records[1] = Record(ids=whole[:1])
    blocks = driver.leases[0][:1] + driver.lease(16)
    driver.add(1, ids, 5, generated=whole[:1], blocks=blocks, cached=16)
    driver.run()
    assert driver.model.steps[-4:] == [(1,)] * 4
    assert driver.records[1].ids == whole


@pytest.mark.parametrize(
    ("sampling", "ahead"),
    [
        (SamplingParameters(), True),
        (SamplingParameters(do_sample=True, top_p=0.9, repetition_penalty=1.2), True),
        (SamplingParameters(top_n_tokens=2), False),
        (SamplingParameters(watermark=True), False),
    ],
)
def test_only_steps_that_the_host_must_see_are_waited_for(sampling, ahead):
    driver = fake_driver(runner="recorded")
    driver.add(0, PROMPT, 9, sampling=sampling)
    driver.step()
    assert len(driver.model.steps) == 1 + ahead
    driver.run()
    assert driver.records[0].finish == "length"
