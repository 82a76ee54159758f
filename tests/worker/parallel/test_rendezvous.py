"""How shards meet, and what becomes of one whose group ends."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import Queue

import pytest
import zmq

from common.messages import Form, Join, Leave
from common.sockets import (
    TO_FOLLOWER,
    encode,
    follower_identity,
    open_socket,
    shards_endpoint,
)
from tests.processes import started
from worker.errors import GroupLostError
from worker.parallel.rendezvous import Berth, Crew
from worker.parallel.watch import EXIT_STATUS, Watch

LIMIT_S = 20


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


def joining(context: zmq.Context, path: str, shard: int, pid: int) -> zmq.Socket:
    socket = open_socket(context, zmq.DEALER, identity=follower_identity(shard, pid))
    socket.connect(shards_endpoint(path, 0))
    socket.send(encode(Join(shard, pid)))
    return socket


def test_only_the_living_are_taken(
    place: tuple[zmq.Context, str], process: Process, begin: Begin
) -> None:
    context, path = place
    dead = begin()
    dead.end()
    crew = Crew(context, path, 0, 2)
    others = [joining(context, path, 1, dead.pid), saying_nonsense(context, path)]
    others += [joining(context, path, shard, process.pid) for shard in (0, 2)]  # no followers
    follower = joining(context, path, 1, process.pid)
    crew.assemble()
    assert crew.pids == [process.pid]
    stores = {crew.new_store(), crew.new_store()}
    assert len(stores) == 2
    for _ in stores:
        assert follower.poll(LIMIT_S * 1000)
        form = TO_FOLLOWER.decode(follower.recv())
        assert isinstance(form, Form)
        assert form.pid == os.getpid()
        assert form.store in {str(store) for store in stores}
    crew.dismiss()
    assert follower.poll(LIMIT_S * 1000)
    assert TO_FOLLOWER.decode(follower.recv()) == Leave()
    assert not any(other.poll(0) for other in others)


def saying_nonsense(context: zmq.Context, path: str) -> zmq.Socket:
    socket = open_socket(context, zmq.DEALER, identity=b"nonsense")
    socket.connect(shards_endpoint(path, 0))
    socket.send(b"nonsense")
    return socket


def test_one_that_dies_while_others_are_awaited_is_replaced(
    place: tuple[zmq.Context, str], process: Process, begin: Begin
) -> None:
    context, path = place
    crew = Crew(context, path, 0, 3)
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
    assert [TO_FOLLOWER.decode(peer.recv()) for peer in peers[1:]] == [Leave(), Leave()]


def test_a_follower_asks_again_until_there_is_a_leader(
    place: tuple[zmq.Context, str], begin: Begin
) -> None:
    context, path = place
    berth = Berth(context, path, 0, 1)
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
    assert leader.poll(LIMIT_S * 1000)
    identity, _ = leader.recv_multipart()
    leader.send_multipart([identity, encode(Form("/store", dead.pid))])
    assert "leader has ended" in str(met.get(timeout=LIMIT_S))
    waiting.join(LIMIT_S)
    berth.close()


def test_a_death_ends_the_process_unless_the_watch_is_called_off(begin: Begin) -> None:
    left: Queue[int] = Queue()
    victims = [begin(), begin()]
    watch = Watch({os.pidfd_open(victim.pid): "somebody" for victim in victims}, left.put)
    victims[1].end()
    assert left.get(timeout=LIMIT_S) == EXIT_STATUS
    watch.call_off()
    calm = Watch({os.pidfd_open(victims[0].pid): "somebody"}, left.put)
    calm.call_off()
    victims[0].end()
    assert left.empty()
