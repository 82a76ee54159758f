"""The servers that the clients talk to, and the table at the end.

Runs in the tests' process. Knows how to start a server and whose case a test is, nothing of what
the clients do.
"""

from collections.abc import Iterator

import pytest

from tests.clients.table import Tally, table
from tests.end_to_end.harness import Server, running

CLIENT = pytest.StashKey[str]()
TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and begin to count."""
    config.addinivalue_line("markers", "client(name): whose case a test is, for the table")
    config.stash[TALLY] = Tally()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Count each case once: when it was called, or when it could not be."""
    report = yield
    mark = item.get_closest_marker("client")
    if mark is not None and (report.when == "call" or report.failed):
        item.config.stash[TALLY].add(mark.args[0], item.nodeid, passed=report.passed)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print client × version × cases passed."""
    lines = table(terminalreporter.config.stash[TALLY])
    if lines:
        terminalreporter.section("clients")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous clients run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The built-in model, as a user starts it, with prompt log-probabilities on."""
    with running("--enable-prefill-logprobs", "--max-concurrent-requests", "64") as started:
        yield started


@pytest.fixture(scope="session")
def tgi_server() -> Iterator[Server]:
    """The same model, with chat answers exactly in TGI's form."""
    with running("--messages-api-dialect", "tgi", "--enable-prefill-logprobs") as started:
        yield started
