"""The fake engine in the real loop: it has all that the loop asks of an engine."""

from bench.fake_worker import FakeEngine, token_at
from common.messages import Dispatch, Ready, StepReport
from tests.worker.list_link import ALICE, Clock, ListLink, new
from worker.loop import Identity, Loop


def test_the_loop_runs_on_it_until_a_sequence_ends():
    clock = Clock()
    link = ListLink(clock, inbox=[Dispatch(7, 1, 64, add=[new(ALICE, 1, 3)])])
    turns = iter(range(3))
    loop = Loop(FakeEngine(32, 0.0, clock), link, Identity(0, 99, 4321), clock, 0.0)
    loop.run(lambda: next(turns, None) is None)
    ready, *steps = link.reports
    assert isinstance(ready, Ready)
    assert all(isinstance(step, StepReport) for step in steps)
    first, second, last = [tokens for _, tokens in link.published]
    assert first.items[0].ids == [token_at(0)]
    assert second.following.tokens == [token_at(1)]
    assert (last.items[0].ids, last.items[0].finish) == ([token_at(2)], "length")
