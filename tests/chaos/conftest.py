"""The undisturbed run that everything is compared with, and the table at the end."""

from collections.abc import Callable

import pytest

from tests.chaos.kinds import KINDS
from tests.chaos.scene import scene
from tests.chaos.table import Row, Truth, render, truth_of
from tests.chaos.talk import Outcome

ROWS = pytest.StashKey[list[Row]]()
SAID = pytest.StashKey[list[str]]()
LIMIT_S = 400

Survived = Callable[[str, list[Outcome]], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[SAID] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Servers start in these tests, and workers again and again."""
    for item in items:
        item.add_marker("end_to_end")
        item.add_marker(pytest.mark.timeout(LIMIT_S))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[ROWS]:
        terminalreporter.section("what the streams noticed")
        terminalreporter.write_line(render(config.stash[ROWS]))
    for line in config.stash[SAID]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def truth(pytestconfig: pytest.Config) -> Truth:
    with scene() as undisturbed:
        first = truth_of(undisturbed, KINDS)
        again = truth_of(undisturbed, KINDS)
    assert first == again, "an undisturbed run does not repeat itself"
    return first


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Have a line printed below the table."""
    return pytestconfig.stash[SAID].append


@pytest.fixture
def survived(truth: Truth, pytestconfig: pytest.Config) -> Survived:
    """Enter a fault into the table, and fail if anybody has noticed more of it than a pause."""

    def check(fault: str, outcomes: list[Outcome]) -> None:
        pytestconfig.stash[ROWS].append(truth.row(fault, outcomes))
        wrong = [text for outcome in outcomes if (text := truth.differs(outcome))]
        assert not wrong, "\n".join(wrong)

    return check
