"""The loop with a link of lists and a clock that is told the time: no sockets, no waiting."""

from common.messages import (
    PROTOCOL_VERSION,
    Dispatch,
    Heartbeat,
    NewSequence,
    Ready,
    Reset,
    SequenceSpec,
    StepReport,
)
from common.sampling import SamplingParameters
from tests.worker.driver import CPU, HistoryModel
from tests.worker.grammars import Held, byte_guidance, regex
from tests.worker.list_link import ALICE, BOB, Clock, ListLink, new
from tests.worker.reported import progress_of
from worker.engine import Engine
from worker.loop import Identity, Loop


class World:
    def __init__(self, guidance=None, hold_s=0.0) -> None:
        self.clock = Clock()
        self.link = ListLink(self.clock)
        self.model = HistoryModel(256)
        self.engine = Engine(
            self.model,
            HistoryModel.cache(32),
            blocks=32,
            device=CPU,
            clock=self.clock,
            guidance=guidance,
        )
        self.loop = Loop(self.engine, self.link, Identity(2, 99, 4321), self.clock, hold_s)
        self.number = 0

    def turn(self, *messages):
        """One turn; what it reported."""
        self.link.inbox += messages
        self.link.reports.clear()
        self.link.published.clear()
        self.loop.turn()
        return list(self.link.reports)

    def dispatch(self, *add, epoch=7, **changes):
        self.number += 1
        return Dispatch(epoch, self.number, 64, add=list(add), **changes)


def test_ready_is_said_first_and_stopping_is_asked_between_steps():
    world = World()
    world.link.inbox = [world.dispatch(new(ALICE, 1, 10))]
    answers = iter([False, False, True])
    world.loop.run(lambda: next(answers))
    assert world.link.reports[0] == Ready(PROTOCOL_VERSION, 2, 99, 4321, 32, 0)
    assert [report.step for report in world.link.reports[1:]] == [1, 2]


def test_a_model_that_shares_no_prefixes_says_so():
    world = World()
    world.model.shares_prefixes = False
    world.loop.run(lambda: True)
    assert world.link.reports[0].prefix_caching is False


def test_a_report_says_what_happened():
    world = World()
    (report,) = world.turn(world.dispatch(new(ALICE, 1), release=[77]))
    assert isinstance(report, StepReport)
    assert (report.epoch, report.incarnation, report.dispatch, report.step) == (7, 99, 1, 1)
    assert report.released == [77]
    assert report.timing.prefill_tokens == 3
    assert report.timing.decode_tokens == 0
    assert report.items[0].computed_tokens == 3
    (report,) = world.turn()
    assert (report.dispatch, report.step, report.released) == (1, 2, [])
    assert (report.timing.prefill_tokens, report.timing.decode_tokens) == (0, 1)


def test_the_gap_between_steps_is_told_but_not_that_of_an_idle_worker():
    world = World()
    (report,) = world.turn(world.dispatch(new(ALICE, 1, 2)))
    assert report.timing.gap_s == 0.0
    world.clock.now += 0.25
    (report,) = world.turn()
    assert report.timing.gap_s == 0.25
    assert report.items[0].tokens.finish == "length"
    world.turn()
    world.clock.now += 60.0
    (report,) = world.turn(world.dispatch(new(ALICE, 2)))
    assert report.timing.gap_s == 0.0


def test_one_message_per_front_end_of_the_very_same_tokens():
    world = World()
    (report,) = world.turn(world.dispatch(new(ALICE, 1), new(BOB, 2), new(ALICE, 3)))
    (first, to_alice), (second, to_bob) = world.link.published
    assert (first, second) == (ALICE, BOB)
    assert [tokens.id & 7 for tokens in to_alice.items] == [1, 3]
    assert to_alice.items[0] is report.items[0].tokens
    assert to_bob.items[0] is report.items[1].tokens
    assert (to_bob.incarnation, to_bob.step) == (99, 1)
    assert report.undelivered == []


def test_unseen_front_ends_are_left_to_the_scheduler():
    world = World()
    world.link.subscriptions = {BOB}
    (report,) = world.turn(world.dispatch(new(ALICE, 1), new(BOB, 2)))
    assert [frontend for frontend, _ in world.link.published] == [BOB]
    assert report.undelivered == [ALICE]
    (report,) = world.turn()
    assert report.undelivered == [ALICE]
    assert [item.tokens.id for item in report.items] == [ALICE << 32 | 1, BOB << 32 | 2]
    world.link.subscriptions.add(ALICE)
    (report,) = world.turn()
    assert len(world.link.published) == 2
    assert report.undelivered == []


def test_errors_and_unfinished_prompts_are_for_the_scheduler_only():
    world = World()
    reading = NewSequence(SequenceSpec(ALICE << 32, [1] * 40, 3, SamplingParameters()), 0, [], [1])
    (report,) = world.turn(world.dispatch(reading, new(BOB, 2, blocks=[0])))
    assert [bool(item.error) for item in report.items] == [True, False]
    assert world.link.published == []
    assert report.undelivered == []


def test_an_end_without_tokens_is_published():
    world = World()
    over = NewSequence(
        SequenceSpec(ALICE << 32, [1, 2], 1, SamplingParameters()), 0, [3], [1], queue_s=0.1
    )
    world.turn(world.dispatch(over))
    ((_, message),) = world.link.published
    assert [(item.index, item.ids, item.finish) for item in message.items] == [(1, [], "length")]


def test_busy_turns_do_not_wait_and_idle_ones_wait_for_the_heartbeat():
    world = World()
    world.loop.run(iter([False] * 3 + [True]).__next__)
    assert world.link.timeouts == [1.0, 1.0, 1.0]
    assert [type(r) for r in world.link.reports] == [Ready, Heartbeat, Heartbeat, Heartbeat]
    assert world.link.reports[1] == Heartbeat(0, 99, 0)
    world.link.timeouts.clear()
    world.turn(world.dispatch(new(ALICE, 1, 3)))
    world.turn()
    world.turn()
    assert world.link.timeouts[1:] == [0.0, 0.0]
    world.clock.now += 0.25
    assert world.turn() == []  # nobody could advance: now it may wait
    assert world.turn() == [Heartbeat(7, 99, 3)]
    assert world.link.timeouts[-2:] == [0.0, 0.75]


def test_reports_that_can_wait_come_in_order_before_what_cannot():
    world = World(hold_s=0.1)
    (report,) = world.turn(world.dispatch(new(ALICE, 1, 4)))
    assert report.step == 1
    assert world.turn() == []
    assert len(world.link.published) == 1
    assert world.turn() == []
    before = world.link.messages
    assert [report.step for report in world.turn()] == [2, 3, 4]
    assert world.link.messages == before + 1


def test_nothing_is_held_back_once_there_is_nothing_to_do():
    world = World(hold_s=0.1)
    world.turn(world.dispatch(new(ALICE, 1, 20, blocks=[1])))
    while world.link.published:
        last = world.turn()
    assert progress_of(last[-1])[0].computed_tokens == 16
    assert world.link.timeouts[-1] == 0.0


def test_what_was_held_is_dropped_with_its_epoch():
    world = World(hold_s=0.1)
    world.turn(world.dispatch(new(ALICE, 1, 10)))
    assert world.turn() == []
    assert [type(report) for report in world.turn(Reset(8))] == [Ready]


def test_a_sequence_without_room_is_waited_for():
    world = World()
    world.turn(world.dispatch(new(ALICE, 1, blocks=[])))
    world.turn()
    assert world.link.timeouts[-1] > 0


def test_a_grammar_is_waited_for_and_its_end_reported_when_it_comes(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    world = World(guidance)
    world.turn(world.dispatch(new(ALICE, 1, grammar=regex("a+")), new(BOB, 2, grammar="nonsense")))
    world.turn()
    world.turn()
    assert world.link.timeouts[-1] > 0
    held.work()
    held.work()
    (report,) = world.turn()
    assert [(bool(item.error), item.tokens.ids) for item in report.items] == [
        (True, []),
        (False, [ord("a")]),
    ]
    assert [frontend for frontend, _ in world.link.published] == [ALICE]
    guidance.close()


def test_a_grammar_that_fails_is_reported_though_nobody_steps(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    world = World(guidance)
    world.turn(world.dispatch(new(ALICE, 1, grammar="nonsense")))
    held.work()
    (report,) = world.turn()
    assert report.items[0].error == "the grammar cannot be compiled"
    assert report.timing is None
    assert world.engine.held == 0
    guidance.close()


def test_releases_without_a_step_are_confirmed_at_once():
    world = World()
    (report,) = world.turn(world.dispatch(release=[5, 6]))
    assert (report.released, report.step, report.timing) == ([5, 6], 0, None)
    assert report.dispatch == 1
    assert world.turn() == [Heartbeat(7, 99, 0)]


def test_a_release_comes_before_the_next_step():
    world = World()
    leaver, stays = new(ALICE, 1, 10), new(ALICE, 2, 10)
    world.turn(world.dispatch(leaver, stays))
    (report,) = world.turn(world.dispatch(release=[leaver.spec.id]))
    assert report.released == [leaver.spec.id]
    assert [item.tokens.id for item in progress_of(report)] == [stays.spec.id]


def test_several_messages_at_once_are_applied_in_order():
    world = World()
    (report,) = world.turn(
        world.dispatch(new(ALICE, 1), new(ALICE, 2)), world.dispatch(release=[ALICE << 32 | 1])
    )
    assert report.dispatch == 2
    assert [item.tokens.id & 7 for item in report.items] == [2]


def test_reset_drops_everything_and_is_answered():
    world = World()
    world.turn(world.dispatch(new(ALICE, 1, 10)))
    (ready,) = world.turn(Reset(8))
    assert ready == Ready(PROTOCOL_VERSION, 2, 99, 4321, 32, 8)
    assert world.engine.held == 0
    assert world.turn(world.dispatch(new(ALICE, 1), epoch=7)) == []
    assert world.engine.held == 0
    assert world.loop.stale_dispatches == 1
    (report,) = world.turn(world.dispatch(new(ALICE, 1), epoch=8))
    assert (report.epoch, report.step) == (8, 2)


def test_an_old_release_is_not_confirmed_to_a_new_epoch():
    world = World()
    world.turn(Reset(7))
    reports = world.turn(world.dispatch(release=[5]), Reset(8))
    assert [type(report) for report in reports] == [Ready]


def test_after_a_reset_in_the_same_breath_the_new_epoch_counts():
    world = World()
    reports = world.turn(
        world.dispatch(new(ALICE, 1)), Reset(8), world.dispatch(new(BOB, 2), epoch=8)
    )
    assert [type(report) for report in reports] == [Ready, StepReport]
    assert [item.tokens.id >> 32 for item in reports[1].items] == [BOB]


def test_a_dispatch_that_is_missing_is_only_logged(caplog):
    world = World()
    world.turn(world.dispatch())
    world.number += 1
    world.turn(world.dispatch(new(ALICE, 1)))
    assert "dispatch 3 came after 1" in caplog.text
    assert world.engine.held
