"""A model that two processes share: whatever happens to one of them, everybody's text goes on."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.scene import Scene, scene
from tests.chaos.talk import Talk, together

LEADER, FOLLOWER = "--number 0", "--number 1"


@pytest.fixture(scope="module")
def group() -> Iterator[Scene]:
    with scene("--num-shard", "2") as made:
        yield made


@pytest.mark.parametrize(
    ("victim", "blow", "row"),
    [
        (FOLLOWER, signal.SIGKILL, "kill -9 of a follower (2 shards)"),
        (LEADER, signal.SIGKILL, "kill -9 of a leader (2 shards)"),
        (FOLLOWER, signal.SIGSTOP, "a stopped follower (2 shards)"),
    ],
)
def test_one_of_a_group(
    group: Scene, survived: Survived, victim: str, blow: signal.Signals, row: str
) -> None:
    before = [group.pid(LEADER), group.pid(FOLLOWER)]

    def strike(talks: list[Talk]) -> None:
        os.kill(group.pid(victim), blow)

    outcomes = together(group.server, KINDS, strike)
    group.settle()
    survived(row, outcomes)
    assert not {group.pid(LEADER), group.pid(FOLLOWER)} & set(before)
