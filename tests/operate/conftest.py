"""What the tests of operation share: a built image, and a running server.

Not part of the default run: they need Debian packages and minutes. A missing tool fails its tests
with the sentence that says what to install.
"""

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.harness import Server, running
from tests.operate.containers import CACHE, Store, base_image, build_image

Note = Callable[[str], None]
Noticed = Callable[[str, int, int], None]
_ROWS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[_ROWS]:
        terminalreporter.section("what was seen")
        for row in config.stash[_ROWS]:
            terminalreporter.write_line(row)


@pytest.fixture
def note(pytestconfig: pytest.Config) -> Note:
    """Write a line into the summary."""
    return pytestconfig.stash[_ROWS].append


@pytest.fixture
def noticed(note: Note) -> Noticed:
    """Write a line into the summary: what happened, how many requests, how many failed."""
    return lambda what, requests, failed: note(f"{what}: {requests} requests, {failed} failed")


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """A container storage that is gone afterwards."""
    missing = [tool for tool in ("podman", "buildah", "debootstrap") if not shutil.which(tool)]
    if missing:
        pytest.fail(f"install first: apt-get install {' '.join(missing)}", pytrace=False)
    store = Store(CACHE / "storage")
    store.remove()
    yield store
    store.remove()


@pytest.fixture(scope="session")
def image(store: Store) -> str:
    """The image for CPUs."""
    return build_image(store, base_image(store))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The built-in model, as a user starts it."""
    with running("--max-concurrent-requests", "32", "--num-frontends", "3") as started:
        yield started
