"""Followers, each in a process of its own, for one model after another that a test leads.

The leaders are in the tests' process. What goes wrong under a leader costs its followers their
lives; what they have printed is shown, and the next leader finds others.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from queue import Queue
from subprocess import PIPE, Popen, TimeoutExpired
from unittest.mock import patch

import zmq

from tests.processes import started
from tests.worker.models.comparing import CPU
from tests.worker.parallel.follower import FREE, HERE
from worker.parallel import group as collectives
from worker.parallel.group import Group
from worker.parallel.leader import Leader
from worker.parallel.rendezvous import Crew

ROOT = Path(__file__).parents[3]
LIMIT_S = 100
"""For each wait; less than pytest gives a test. No signal reaches who waits in a collective."""
LAST_WORDS_S = 2
"""So long have those who are about to end by themselves, so as to say why."""


class Follower:
    """A process that follows whom it is told to."""

    def __init__(self, shard: int, process: "Popen[bytes]", output: "Queue[str | None]") -> None:
        self.shard = shard
        self.process = process
        self.lines: list[str] = []
        self._output = output

    def tell(self, replica: int, directory: Path) -> None:
        """Follow the leader of this replica, with the model from here."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{replica} {directory}\n".encode())
        self.process.stdin.flush()

    def await_line(self, wanted: str) -> None:
        """Fail if it ends before, or takes too long."""
        while (line := self._output.get(timeout=LIMIT_S)) is not None:
            self.lines.append(line)
            if line == wanted:
                return
        raise AssertionError(f"shard {self.shard} has ended")

    def end(self) -> int:
        """The exit status; nobody is left to follow."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(LIMIT_S)

    def show(self) -> None:
        """What it has printed, among what the test prints."""
        while not self._output.empty():
            self.lines.append(self._output.get() or "(it has ended)")
        sys.stderr.write("\n".join([f"--- shard {self.shard}:", *self.lines, ""]))


class Groups:
    """Groups of one size, one after the other. To be used in ``with``."""

    def __init__(self, size: int) -> None:
        self.followers: list[Follower] = []
        """Empty until somebody is needed."""
        self._size = size
        self._replicas = 0
        self._lives = ExitStack()
        self._rest = ExitStack()
        self._context = self._rest.enter_context(zmq.Context())
        self.runtime_dir = self._rest.enter_context(tempfile.TemporaryDirectory())

    def __enter__(self) -> "Groups":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._rest, self._lives:
            assert kind is not None or not any(self.end())

    @contextmanager
    def led(self, directory: Path) -> Iterator[Leader]:
        """The leader of all shards of the model in ``directory``, until it leaves them."""
        try:
            with patch.object(collectives, "_PATIENCE", timedelta(seconds=LIMIT_S)):
                replica = self.call(directory)
                # Connections to who ends are closed, and the collective fails: that is enough here.
                crew = Crew(
                    self._context, self.runtime_dir, replica, self._size, lambda status: None
                )
                group = Group(0, self._size, CPU)
                try:
                    yield Leader(crew, group)
                finally:
                    crew.dismiss()
                    group.give_up()
                for follower in self.followers:
                    follower.await_line(FREE)
        except BaseException:
            self._give_up()
            raise

    def call(self, directory: Path) -> int:
        """Have all followers wait for the leader of a model; the number of its replica."""
        if not self.followers:
            self.followers = [self._start(shard) for shard in range(1, self._size)]
        replica, self._replicas = self._replicas, self._replicas + 1
        for follower in self.followers:
            follower.tell(replica, directory)
        for follower in self.followers:
            follower.await_line(HERE)
        return replica

    def end(self) -> list[int]:
        """Exit statuses, if there are any followers: they have nobody to follow any more."""
        ending, self.followers = self.followers, []
        return [follower.end() for follower in ending]

    def _start(self, shard: int) -> Follower:
        output: Queue[str | None] = Queue()
        arguments = [self.runtime_dir, str(shard), str(self._size)]
        process = self._lives.enter_context(
            started(
                [sys.executable, "-m", "tests.worker.parallel.follower", *arguments],
                take=output.put,
                stdin=PIPE,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        )
        return Follower(shard, process, output)

    def _give_up(self) -> None:
        lost, self.followers = self.followers, []
        for follower in lost:
            with suppress(TimeoutExpired):
                follower.process.wait(LAST_WORDS_S)
        self._lives.close()
        for follower in lost:
            follower.show()
