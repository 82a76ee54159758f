"""How shards meet, and what becomes of one whose group ends."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import zmq

from common.messages import Form, Join, Leave, MakeCache
from common.sockets import (
    FROM_FOLLOWER,
    TO_FOLLOWER,
    encode,
    follower_identity,
    open_socket,
    shards_endpoint,
)
from tests.processes import started
from worker.errors import GroupLostError
from worker.parallel import rendezvous
from worker.parallel.leader import Leader
from worker.parallel.rendezvous import Berth, Crew
from worker.parallel.watch import EXIT_STATUS, Watch

ROOT = Path(__file__).parents[3]
LIMIT_S = 20

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Process:
    """Lives until it is told to end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid

    def end(self) -> None:
        self._process.communicate(timeout=LIMIT_S)


Begin = Callable[[], Process]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts one."""
    with ExitStack() as lives:
        yield lambda: Process(lives.enter_context(started(["cat"], stdin=subprocess.PIPE)))


@pytest.fixture
def process(begin: Begin) -> Process:
    return begin()


@pytest.fixture
def place() -> Iterator[tuple[zmq.Context, str]]:
    context = zmq.Context()
    with tempfile.TemporaryDirectory() as path:
        yield context, path
    context.destroy(linger=0)


@pytest.fixture
def left() -> Queue[int]:
    """Exit statuses with which this process should have ended: where a test fails, too."""
    return Queue()


@pytest.fixture
def pidfds() -> Iterator[Callable[[], int]]:
    """How many are open here, beyond those of before; none is left in the end."""

    def count() -> int:
        open_ones = 0
        for path in Path("/proc/self/fdinfo").iterdir():
            with suppress(FileNotFoundError):  # that of the folder itself
                open_ones += "\nPid:" in path.read_text()
        return open_ones

    before = count()
    yield lambda: count() - before
    assert count() == before


@pytest.fixture(autouse=True)
def _nothing_that_is_closed_is_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be ready all the time."""

    class Poller(zmq.Poller):
        def poll(self, timeout: float | None = None) -> Any:
            for one, _ in self.sockets:
                if isinstance(one, int):
                    os.fstat(one)
            return super().poll(timeout)

    monkeypatch.setattr(zmq, "Poller", Poller)


def joining(context: zmq.Context, path: str, shard: int, pid: int) -> zmq.Socket:
    """A follower that has joined as this process."""
    socket = open_socket(context, zmq.DEALER, identity=follower_identity(shard, pid))
    socket.connect(shards_endpoint(path, 0))
    socket.send(encode(Join(shard, pid)))
    return socket


def told(follower: zmq.Socket) -> Any:
    """The next message of its leader."""
    assert follower.poll(LIMIT_S * 1000)
    return TO_FOLLOWER.decode(follower.recv())


def test_only_the_living_are_taken(
    place: tuple[zmq.Context, str], process: Process, begin: Begin, left: Queue[int]
) -> None:
    context, path = place
    dead = begin()
    dead.end()
    crew = Crew(context, path, 0, 2, left.put)
    others = [joining(context, path, 1, dead.pid), saying_nonsense(context, path)]
    others += [joining(context, path, shard, process.pid) for shard in (0, 2)]  # no followers
    follower = joining(context, path, 1, process.pid)
    crew.assemble()
    assert crew.pids == [process.pid]
    stores = {crew.new_store(), crew.new_store()}
    assert len(stores) == 2
    for _ in stores:
        form = told(follower)
        assert isinstance(form, Form)
        assert form.pid == os.getpid()
        assert form.store in {str(store) for store in stores}
    crew.dismiss()
    assert told(follower) == Leave()
    assert not any(other.poll(0) for other in others)


def saying_nonsense(context: zmq.Context, path: str) -> zmq.Socket:
    socket = open_socket(context, zmq.DEALER, identity=b"nonsense")
    socket.connect(shards_endpoint(path, 0))
    socket.send(b"nonsense")
    return socket


def test_one_that_dies_while_others_are_awaited_is_replaced(
    place: tuple[zmq.Context, str], process: Process, begin: Begin, left: Queue[int]
) -> None:
    context, path = place
    crew = Crew(context, path, 0, 3, left.put)
    first = begin()
    peers = [joining(context, path, 1, first.pid)]
    assembling = threading.Thread(target=crew.assemble)
    assembling.start()
    first.end()
    peers += [joining(context, path, shard, process.pid) for shard in (2, 1)]
    assembling.join(LIMIT_S)
    assert not assembling.is_alive()
    assert crew.pids == [process.pid, process.pid]
    crew.dismiss()
    assert [told(peer) for peer in peers[1:]] == [Leave(), Leave()]


def test_one_that_comes_again_as_another_process_is_known_as_that(
    place: tuple[zmq.Context, str],
    begin: Begin,
    left: Queue[int],
    pidfds: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anybody has seen the end of the first; and one that comes twice is held once."""
    context, path = place
    crew = Crew(context, path, 0, 3, left.put)
    first, second, third, dead = begin(), begin(), begin(), begin()
    dead.end()
    looked_at: Queue[int] = Queue()
    open_it = os.pidfd_open

    def opened(pid: int) -> int:
        looked_at.put(pid)
        return open_it(pid)

    monkeypatch.setattr(os, "pidfd_open", opened)
    again = open_socket(context, zmq.DEALER, identity=follower_identity(1, second.pid))
    again.connect(shards_endpoint(path, 0))
    for pid in (first.pid, second.pid, second.pid, dead.pid):
        again.send(encode(Join(1, pid)))
    assembling = threading.Thread(target=crew.assemble)
    assembling.start()
    while looked_at.get(timeout=LIMIT_S) != dead.pid:
        pass
    # All of those have been read: the group was not complete before.
    other = joining(context, path, 2, third.pid)
    assembling.join(LIMIT_S)
    assert not assembling.is_alive()
    assert sorted(crew.pids) == sorted([second.pid, third.pid])
    assert pidfds() == 2
    crew.send(MakeCache(5))
    crew.dismiss()
    for follower in (again, other):
        assert told(follower) == MakeCache(5)
        assert told(follower) == Leave()


def test_a_leader_ends_with_a_follower_and_says_which(
    place: tuple[zmq.Context, str],
    begin: Begin,
    left: Queue[int],
    pidfds: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    context, path = place
    crew = Crew(context, path, 0, 3, left.put)
    first, second = begin(), begin()
    peers = [joining(context, path, 1, first.pid), joining(context, path, 2, second.pid)]
    crew.assemble()
    second.end()
    assert left.get(timeout=LIMIT_S) == EXIT_STATUS
    assert "shard 2 has ended, and this process with it" in caplog.messages
    crew.dismiss()
    assert [told(peer) for peer in peers] == [Leave(), Leave()]


def test_all_that_can_be_reached_are_told_to_leave(
    place: tuple[zmq.Context, str], process: Process, begin: Begin, left: Queue[int]
) -> None:
    context, path = place
    crew = Crew(context, path, 0, 3, left.put)
    follower = open_socket(context, zmq.DEALER, identity=follower_identity(2, process.pid))
    follower.connect(shards_endpoint(path, 0))
    for shard in (1, 2):  # under this name there is a second one only
        follower.send(encode(Join(shard, process.pid)))
    crew.assemble()
    with pytest.raises(GroupLostError, match="shard 1 cannot be reached"):
        crew.send(MakeCache(5))
    crew.dismiss()
    assert [told(follower), told(follower)] == [MakeCache(5), Leave()]


def test_a_follower_asks_again_until_there_is_a_leader(
    place: tuple[zmq.Context, str], begin: Begin, left: Queue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "HEARTBEAT_S", 0.02)
    context, path = place
    berth = Berth(context, path, 0, 1, left.put)
    met: Queue[object] = Queue()

    def wait() -> None:
        try:
            met.put(berth.await_leader())
        except GroupLostError as error:
            met.put(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    dead = begin()
    dead.end()
    leader = open_socket(context, zmq.ROUTER)
    leader.bind(shards_endpoint(path, 0))
    for _ in range(3):
        assert leader.poll(LIMIT_S * 1000)
        identity, _ = leader.recv_multipart()
    leader.send_multipart([identity, encode(Form("/store", dead.pid))])
    assert "leader has ended" in str(met.get(timeout=LIMIT_S))
    waiting.join(LIMIT_S)
    berth.close()


def test_a_leader_begins_with_the_group(
    place: tuple[zmq.Context, str], process: Process, left: Queue[int], pidfds: Callable[[], int]
) -> None:
    context, path = place
    for first in (MakeCache(5), Form("/store", process.pid)):
        leader = open_socket(context, zmq.ROUTER)
        leader.bind(shards_endpoint(path, 0))
        berth = Berth(context, path, 0, 1, left.put)
        greeting = threading.Thread(target=greet, args=(leader, first))
        greeting.start()
        if isinstance(first, Form):
            assert berth.await_leader() == first
            assert pidfds() == 1
        else:
            with pytest.raises(GroupLostError, match="the leader began with MakeCache"):
                berth.await_leader()
        greeting.join(LIMIT_S)
        berth.close()
        leader.close()


def greet(leader: zmq.Socket, message: Any) -> None:
    """Whoever joins first."""
    identity, frame = leader.recv_multipart()
    assert FROM_FOLLOWER.decode(frame) == Join(1, os.getpid())
    leader.send_multipart([identity, encode(message)])


def test_a_death_ends_the_process_unless_the_watch_is_called_off(
    begin: Begin, left: Queue[int], pidfds: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    victims = [begin(), begin()]
    watch = Watch({os.pidfd_open(victim.pid): f"{victim.pid}" for victim in victims}, left.put)
    victims[1].end()
    assert left.get(timeout=LIMIT_S) == EXIT_STATUS
    assert f"{victims[1].pid} has ended, and this process with it" in caplog.messages
    watch.call_off()
    assert not pidfds()
    calm = Watch({os.pidfd_open(victims[0].pid): "somebody"}, left.put)
    calm.call_off()
    victims[0].end()
    assert left.empty()


def test_what_fails_because_another_one_has_ended_says_so(begin: Begin, left: Queue[int]) -> None:
    """The connections of who ends are closed before."""
    victim = begin()
    watch = Watch({os.pidfd_open(victim.pid): "somebody"}, left.put)
    victim.end()
    with pytest.raises(GroupLostError, match="has ended: closed by peer"), watch.collective():
        raise RuntimeError("closed by peer")
    assert left.get_nowait() == EXIT_STATUS
    watch.call_off()


def test_what_fails_while_all_live_is_what_it_is(
    begin: Begin, left: Queue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.parallel.watch.NOTICE_S", 0.01)
    watch = Watch({os.pidfd_open(begin().pid): "somebody"}, left.put)
    with pytest.raises(RuntimeError, match="no device"), watch.collective():
        raise RuntimeError("no device")
    watch.call_off()
    assert left.empty()


@pytest.mark.parametrize("step", ["form", "least"])
def test_a_follower_that_ends_as_its_group_loads_is_a_crash(
    place: tuple[zmq.Context, str], begin: Begin, left: Queue[int], step: str
) -> None:
    """The leader has met it, and begins anew with another one."""

    class Group:
        def form(self, store: str) -> None:
            self.fail_if("form")

        def least(self, number: int) -> int:
            self.fail_if("least")
            return number

        def fail_if(self, at: str) -> None:
            if step == at:
                follower.end()
                raise RuntimeError("closed by peer")

    context, path = place
    follower = begin()
    with joining(context, path, 1, follower.pid):
        crew = Crew(context, path, 0, 2, left.put)
        with pytest.raises(GroupLostError, match="closed by peer"):
            Leader(crew, Group()).least(5, 6)  # type: ignore[arg-type]
        crew.dismiss()


def test_who_only_watches_ends(begin: Begin) -> None:
    """As where a start fails: nobody waits for the others then."""
    code = (
        "import os, sys\n"
        "from worker.parallel.watch import Watch\n"
        "Watch({os.pidfd_open(int(sys.argv[1])): 'somebody'}, os._exit)\n"
    )
    with started([sys.executable, "-c", code, str(begin().pid)], cwd=ROOT) as watching:
        assert watching.wait(LIMIT_S) == 0
