"""What goes wrong under a leader of a test costs its followers alone, and is shown."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import alive
from tests.worker.models.comparing import prompt
from tests.worker.parallel.drivers import together
from tests.worker.parallel.groups import LIMIT_S, Follower, Groups
from tests.worker.tiny import write_tiny_llama
from worker.parallel.leader import Leader


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "good"
    write_tiny_llama(made)
    return made


@pytest.fixture(scope="module")
def groups() -> Iterator[Groups]:
    with Groups(2) as made:
        yield made


Fail = Callable[[Path, Leader, Follower], None]


def an_assertion(good: Path, leader: Leader, follower: Follower) -> None:
    together(good, leader)
    raise AssertionError("on purpose")


def an_error_in_a_follower(good: Path, leader: Leader, follower: Follower) -> None:
    together(good, leader)
    leader.make_cache(10**15)
    leader._group.least(0)


def a_death(good: Path, leader: Leader, follower: Follower) -> None:
    driver = together(good, leader)
    driver.add(0, prompt(20), 4)
    follower.process.kill()
    follower.process.wait(LIMIT_S)
    driver.run()


@pytest.mark.parametrize(
    ("fail", "error", "shown"),
    [
        (an_assertion, "on purpose", "--- shard 1:"),
        (an_error_in_a_follower, "onnection", "no memory for"),
        (a_death, "shard 1 cannot be reached|onnection", "(it has ended)"),
    ],
)
def test_others_come_after_a_failure(
    good: Path,
    groups: Groups,
    capsys: pytest.CaptureFixture[str],
    fail: Fail,
    error: str,
    shown: str,
) -> None:
    followers: list[Follower] = []

    def under_a_leader() -> None:
        with groups.led(good) as leader:
            followers.extend(groups.followers)
            fail(good, leader, groups.followers[0])

    with pytest.raises(Exception, match=error):
        under_a_leader()
    assert not any(alive(follower.process.pid) for follower in followers)
    assert shown in capsys.readouterr().err
    with groups.led(good) as leader:
        driver = together(good, leader)
        driver.add(0, prompt(20), 4)
        driver.run()
        assert len(driver.records[0].ids) == 4
    assert groups.followers
    assert groups.followers[0] not in followers
