"""HAProxy and nginx before two whole servers: load, cancelling, a killed server, a rolling restart.

Needs the Debian packages haproxy and nginx.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.operate.balancers import NAMES
from tests.operate.balancing import House, balanced
from tests.operate.calls import Call
from tests.operate.conftest import Noticed
from tests.processes import alive, children_of

pytestmark = pytest.mark.timeout(400)
LONG = 200
CROWD = 6
LATE_S = 4.0
"""Without an answer: long enough for two checks that are not waited for."""


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def house(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with balanced(kind, tmp_path_factory.mktemp(kind)) as made:
        yield made


class Crowd:
    """Clients that ask again and again, streams and whole answers, until they are sent home."""

    def __init__(self, house: House, clients: int = CROWD) -> None:
        self.calls: list[Call] = []
        self._front = house.front
        self._home = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(place,), daemon=True)
            for place in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, place: int) -> None:
        while not self._home.is_set():
            call = Call(self._front, streams=place % 3 != 0, tokens=30 + 10 * place)
            self.calls.append(call.start())
            call.wait()

    def end(self) -> list[Call]:
        self._home.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        return self.calls


def test_the_least_loaded_server_is_next(house: House) -> None:
    calls = []
    for _ in range(6):
        calls.append(Call(house.front, tokens=LONG).start())
        house.until(lambda: calls[-1].events > 0 or calls[-1].over)
    # It comes as it is made: the first events are here, and everybody is still being served.
    assert house.live() == {"one": 3, "two": 3}
    for call in calls:
        assert call.wait().error == ""


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_is_noticed_behind_the_balancer(house: House, streams: bool) -> None:
    call = Call(house.front, streams=streams, tokens=1900).start()
    house.until(lambda: sum(house.live().values()) == 1)
    call.leave()
    house.until(lambda: sum(house.live().values()) == 0, 10)


def test_clients_that_dawdle_are_in_nobodys_way(house: House) -> None:
    """Half a head, half a body, or an answer that nobody reads."""
    body = json.dumps({"inputs": "Go on:", "parameters": {"max_new_tokens": 40}}).encode()
    head = b"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as stack:
        for text in [head, whole[:-9]] * 100 + [whole] * 4:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", house.front), 10))
            client.sendall(text)
        calls = [Call(house.front, streams=i % 2 == 0, tokens=10).start() for i in range(8)]
        assert [call.wait().error for call in calls] == [""] * 8
    house.until(lambda: sum(house.live().values()) == 0)


def test_metrics_of_one_server_are_not_shown_as_those_of_all(house: House) -> None:
    assert house.servers["one"].get("/metrics").status == 200
    assert house.status("/metrics") == 404


def test_a_server_that_is_not_ready_gets_nothing(house: House) -> None:
    server = house.servers["one"]
    (scheduler,) = server.pids("-m scheduler")
    os.kill(scheduler, signal.SIGSTOP)
    try:
        house.until(lambda: server.get("/health/ready").status == 503)
        calls = [Call(house.front, streams=i % 2 == 0, tokens=10).start() for i in range(8)]
        assert [call.wait().error for call in calls] == [""] * 8
        assert {call.server for call in calls} == {"two"}
    finally:
        os.kill(scheduler, signal.SIGCONT)
    house.until(lambda: server.get("/health/ready").status == 200)
    house.until(lambda: Call(house.front, tokens=2).start().wait().server == "one")


def test_servers_that_answer_late_are_not_taken_for_dead(house: House) -> None:
    """As all do on a machine whose processors are taken: then nobody would be left to ask."""
    stopped = [pid for server in house.servers.values() for pid in server.pids("frontend.serve")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(LATE_S)
        call = Call(house.front, tokens=2).start()
        call.done.wait(1)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert call.wait().error == ""


def test_a_killed_server_takes_only_its_own_streams_along(
    house: House, kind: str, noticed: Noticed
) -> None:
    crowd = Crowd(house)
    lasting = [Call(house.front, tokens=LONG).start() for _ in range(8)]
    house.until(lambda: all(call.events > 0 for call in lasting))
    over = {call for call in crowd.calls if call.over}
    killed = house.servers["one"]
    family = children_of(killed.process.pid)
    killed.kill()
    house.until(lambda: not any(alive(pid) for pid in family))
    # RACE: whoever came while the processes were ending may have been taken along, too.
    in_flight = {*crowd.calls, *lasting} - over
    begun = len(crowd.calls)
    house.until(lambda: len(crowd.calls) > begun + 12)
    calls = crowd.end() + [call.wait() for call in lasting]
    failed = [call for call in calls if call.error]
    noticed(f"{kind}: one of two servers is killed", len(calls), len(failed))
    # An answer that is no stream has no head yet: nobody has said whose it is.
    assert all(call in in_flight and call.server in {"one", ""} for call in failed), failed
    assert {call.server for call in lasting if call.error} == {"one"}
    assert all(call.error for call in lasting if call.server == "one")
    house.begin_anew("one")
    house.until(lambda: Call(house.front, tokens=2).start().wait().server == "one")


def test_a_rolling_restart_fails_nobody(house: House, kind: str, noticed: Noticed) -> None:
    crowd = Crowd(house)
    for name in NAMES:
        house.stop(name)
        house.revive(name)
        seen = len(crowd.calls)
        house.until(lambda name=name, seen=seen: _served(crowd, name, seen))
    calls = crowd.end()
    failed = [call for call in calls if call.error]
    noticed(f"{kind}: both servers are restarted, one after the other", len(calls), len(failed))
    assert [call.error for call in failed] == []


def _served(crowd: Crowd, name: str, since: int) -> bool:
    """Whether a server has answered anything of late."""
    return any(call.server == name and call.over for call in crowd.calls[since:])
