"""How the shards of a replica meet, and the socket on which the leader speaks to the others.

Runs in every shard. Each start of a leader is a new attempt: it takes those followers that live now
and names a file that nobody has used before, through which their collectives find each other. A
follower that has been left by its leader ends, so none can bring anything old into a new group.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import zmq

from common.messages import Form, Join, Leave, ToFollower
from common.sockets import (
    FROM_FOLLOWER,
    HEARTBEAT_S,
    TO_FOLLOWER,
    BadFrameError,
    encode,
    follower_identity,
    open_socket,
    shards_endpoint,
)
from worker.errors import GroupLostError
from worker.parallel.watch import Watch

_log = logging.getLogger(__name__)


class Crew:
    """The leader's side: its followers."""

    def __init__(
        self,
        context: Any,
        runtime_dir: str,
        replica: int,
        size: int,
        leave: Callable[[int], object],
    ) -> None:
        """``leave`` ends this process when a follower ends."""
        self._leave = leave
        self._runtime_dir = Path(runtime_dir)
        self._replica = replica
        self._size = size
        self._pids: dict[int, int] = {}
        self._held: dict[int, int] = {}
        """pidfd of each shard."""
        self._watch: Watch | None = None
        self._socket = open_socket(context, zmq.ROUTER)
        self._socket.bind(shards_endpoint(runtime_dir, replica))

    @property
    def pids(self) -> list[int]:
        """Of the followers."""
        return list(self._pids.values())

    def assemble(self) -> None:
        """Wait until all followers are there; from now on nobody of us survives another."""
        _log.info("waiting for the other %d shard(s) of replica %d", self._size - 1, self._replica)
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        while len(self._held) < self._size - 1:
            ready = dict(poller.poll())
            for shard, descriptor in list(self._held.items()):
                if descriptor in ready:
                    poller.unregister(descriptor)
                    self._forget(shard)
            if self._socket in ready:
                self._take_in(self._socket.recv_multipart(), poller)
        names = {descriptor: f"shard {shard}" for shard, descriptor in self._held.items()}
        self._watch = Watch(names, self._leave)

    def new_store(self) -> Path:
        """Tell the followers to form a group, and where."""
        store = self._runtime_dir / f"rendezvous-{self._replica}-{secrets.token_hex(8)}"
        self.send(Form(str(store), os.getpid()))
        return store

    def send(self, message: msgspec.Struct) -> None:
        """To every follower that can be reached. Raises GroupLostError if one cannot."""
        frame = encode(message)
        lost = ""
        for shard, pid in self._pids.items():
            try:
                self._socket.send_multipart([follower_identity(shard, pid), frame])
            except zmq.ZMQError as error:
                lost = f"shard {shard} cannot be reached: {error}"
        if lost:
            raise GroupLostError(lost)

    def collective(self) -> AbstractContextManager[None]:
        """As ``Watch.collective``; once all have been assembled."""
        assert self._watch is not None, "nobody has come yet"
        return self._watch.collective()

    def dismiss(self) -> None:
        """The group ends in peace."""
        if self._watch is not None:
            self._watch.call_off()
        with contextlib.suppress(GroupLostError):
            self.send(Leave())
        self._socket.close(linger=1000)

    def _take_in(self, frames: list[bytes], poller: Any) -> None:
        try:
            join = FROM_FOLLOWER.decode(frames[-1])
        except BadFrameError as error:
            _log.warning("dropped a frame of a shard: %s", error)
            return
        known = self._pids.get(join.shard) == join.pid
        if known or not 0 < join.shard < self._size:
            return
        try:
            descriptor = os.pidfd_open(join.pid)
        except OSError:  # it said so before it died
            return
        if join.shard in self._held:
            poller.unregister(self._held[join.shard])
            self._forget(join.shard)
        self._held[join.shard], self._pids[join.shard] = descriptor, join.pid
        poller.register(descriptor, zmq.POLLIN)

    def _forget(self, shard: int) -> None:
        os.close(self._held.pop(shard))
        del self._pids[shard]


class Berth:
    """A follower's side: its leader."""

    def __init__(
        self,
        context: Any,
        runtime_dir: str,
        replica: int,
        shard: int,
        leave: Callable[[int], object],
    ) -> None:
        """``leave`` ends this process when the leader ends."""
        self._leave = leave
        self._shard = shard
        self._watch: Watch | None = None
        self._socket = open_socket(
            context, zmq.DEALER, identity=follower_identity(shard, os.getpid())
        )
        self._socket.connect(shards_endpoint(runtime_dir, replica))

    def await_leader(self) -> Form:
        """The leader's first message. Raises GroupLostError if that leader lives no more."""
        join = encode(Join(self._shard, os.getpid()))
        while True:
            self._socket.send(join)  # again and again: leaders come and go
            if self._socket.poll(int(HEARTBEAT_S * 1000)):
                break
        message = self.receive()
        if not isinstance(message, Form):
            raise GroupLostError(f"the leader began with {type(message).__name__}")
        try:
            leader = os.pidfd_open(message.pid)
        except OSError:
            raise GroupLostError("the leader has ended") from None
        self._watch = Watch({leader: "shard 0, the leader,"}, self._leave)
        return message

    def collective(self) -> AbstractContextManager[None]:
        """As ``Watch.collective``; once there is a leader. It ends with whoever has ended."""
        assert self._watch is not None, "there is no leader yet"
        return self._watch.collective()

    def receive(self) -> ToFollower:
        """The next message, however long it takes: the watch sees to it that there is somebody."""
        return TO_FOLLOWER.decode(self._socket.recv())

    def close(self) -> None:
        """The group ends in peace."""
        if self._watch is not None:
            self._watch.call_off()
        self._socket.close()
