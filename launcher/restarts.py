"""How often each process was started again: supervisord knows it, the scheduler tells it.

Runs in supervisord's listener, which outlives the scheduler: so the numbers do, too.
"""

from collections.abc import Callable

import zmq

from common.messages import Tally
from common.sockets import encode, open_socket, requests_endpoint

_NEWS = frozenset({"PROCESS_STATE_STARTING", "PROCESS_STATE_RUNNING"})
"""RACE: what is said when a new scheduler starts may still go to the old one's socket, so it is
said again once it runs."""
_NAMES = {"frontend": "frontend-parent"}
"""The processes that serve are its children; they are counted by the scheduler."""
_ONE_SHOT = "announce"


class Restarts:
    """Counts starts."""

    def __init__(self, send: Callable[[Tally], None]) -> None:
        """``send`` must not block."""
        self._send = send
        self._starts: dict[str, int] = {}

    def see(self, event: str, fields: dict[str, str]) -> None:
        """Take note of a state change, and tell the totals if it is a start."""
        name = fields.get("processname", "")
        if event not in _NEWS or name in ("", _ONE_SHOT):
            return
        if event == "PROCESS_STATE_STARTING":
            told = _NAMES.get(name, name.replace("_", "-"))
            self._starts[told] = self._starts.get(told, -1) + 1
        self._send(Tally(restarts=dict(self._starts)))


def to_scheduler(runtime_dir: str) -> Callable[[Tally], None]:
    """Sends over a socket that keeps what is said until there is a scheduler, within bounds."""
    requests = open_socket(zmq.Context.instance(), zmq.DEALER)
    requests.setsockopt(zmq.SNDHWM, 100)
    requests.connect(requests_endpoint(runtime_dir))

    def send(tally: Tally) -> None:
        try:
            requests.send(encode(tally), zmq.NOBLOCK)
        except zmq.Again:
            return  # a hundred wait already, and the next one holds all of it

    return send
