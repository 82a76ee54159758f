"""Transfers of a GPU on one that is late: what is launched waits until somebody waits for it."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from worker import transfers as module
from worker.errors import NotRecordedError
from worker.transfers import CudaTransfers

UNTOUCHED = -7
LINE_BYTES = 128


class Stream:
    """Work in the order of its launch; done when it is drained, not before."""

    def __init__(self):
        self.work = []
        self.done = 0

    def wait_stream(self, other):
        place = len(other.work)
        self.work.append(lambda: other.drain(place))

    def drain(self, place):
        while self.done < place:
            self.done += 1
            self.work[self.done - 1]()


class Late:
    """In the place of ``torch``: its device is memory of the host, and late.

    Memory is pinned if it was asked for so; what is copied from other memory is there at once, as
    if it had been waited for.
    """

    def __init__(self):
        self.streams = []
        self.main = self.current = self.make_stream()
        self.recording = None
        self.copies = 0
        self.captures = []
        self.events = []
        self.cuda = SimpleNamespace(
            Event=self.make_event, Stream=self.make_stream, stream=self.on,
            current_stream=lambda device: self.current, synchronize=self.synchronize,
            CUDAGraph=lambda: Graph(self), graph=self.capture, graph_pool_handle=object,
        )  # fmt: skip
        handle = classmethod(self.handle)
        self.pinned = type("Pinned", (torch.Tensor,), {"__torch_function__": handle})

    def __getattr__(self, name):
        return getattr(torch, name)

    def launch(self, work):
        """On the current stream, or into the graph that is being recorded."""
        (self.current.work if self.recording is None else self.recording.work).append(work)

    def synchronize(self, device=None):
        assert self.recording is None, "a wait cannot be recorded"
        for stream in reversed(self.streams):  # what does not wait for the main one is early
            stream.drain(len(stream.work))

    def empty(self, size, *, dtype, pin_memory):
        assert pin_memory
        assert self.recording is None, "pinned memory is not recorded"
        return torch.full(torch.Size([*np.atleast_1d(size)]), UNTOUCHED, dtype=dtype).as_subclass(
            self.pinned
        )

    def handle(self, kind, function, types, given=(), options=None):
        options = options or {}
        with torch._C.DisableTorchFunctionSubclass():
            if function is torch.Tensor.to and options.get("non_blocking"):
                return self.copy(
                    torch.full_like(given[0], UNTOUCHED).as_subclass(torch.Tensor), given[0]
                )
            if function is torch.Tensor.copy_ and options.get("non_blocking"):
                return self.copy(*given)
            return function(*given, **options)

    def copy(self, target, source):
        assert self.recording is None, "a copy from the host is not recorded"
        self.copies += 1

        def work():
            with torch._C.DisableTorchFunctionSubclass():
                target.copy_(source)

        self.launch(work)
        return target

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph, *, pool, stream, capture_error_mode):
        self.synchronize()
        self.captures.append((pool, stream, capture_error_mode))
        self.recording, self.current = graph, stream
        try:
            yield
        finally:
            self.recording = None
            if graph.broken:  # as torch does: the stream remains the current one
                raise RuntimeError("operation failed due to a previous error during capture")
        self.current = self.main

    def make_stream(self, device=None):
        self.streams.append(Stream())
        return self.streams[-1]

    def make_event(self, *, blocking):
        self.events.append(Event(self, blocking))
        return self.events[-1]


class Graph:
    def __init__(self, late):
        self.work = []
        self.broken = False
        self._late = late

    def replay(self):
        for work in self.work:
            self._late.launch(work)


class Event:
    def __init__(self, late, blocking):
        self.blocking = blocking
        self._late = late

    def record(self):
        self._stream, self._place = self._late.current, len(self._late.current.work)

    def synchronize(self):
        self._stream.drain(self._place)


@pytest.fixture
def late(monkeypatch):
    late = Late()
    monkeypatch.setattr(module, "torch", late)
    return late


@pytest.fixture
def transfers(late):
    return CudaTransfers(torch.device("cpu"))


def test_uploads_arrive_later_and_do_not_overwrite_each_other(late, transfers):
    arrays = [[np.arange(5), np.array([[1, 2], [3, 4]])], [np.arange(100, 140), np.array([9])]]
    wanted = [array.tolist() for own in arrays for array in own]
    sent = [tensor for own in arrays for tensor in transfers.upload(own)]
    assert late.copies == 2, "one for all arrays of a step"
    for own in arrays:
        for array in own:
            array.fill(0)  # the host goes on
    assert all((tensor == UNTOUCHED).all() for tensor in sent)
    late.synchronize()
    assert [tensor.tolist() for tensor in sent] == wanted
    assert {tensor.storage_offset() * tensor.element_size() % LINE_BYTES for tensor in sent} == {0}


def test_a_download_is_what_was_there_and_waits_for_nothing_later(late, transfers):
    device = torch.zeros(2)
    late.launch(lambda: device.fill_(3))
    first = transfers.download(device)
    late.launch(lambda: device.fill_(4))
    second = transfers.download(device)
    late.launch(lambda: device.fill_(5))
    assert first.read().tolist() == [3, 3]
    assert device.tolist() == [3, 3], "what was launched later was waited for"
    assert second.read().tolist() == [4, 4]
    assert first.read().tolist() == [3, 3]
    assert [event.blocking for event in late.events] == [True, True], "the thread would spin"


class Program:
    """Ten times what the state is when it runs; ``made``: what its calls have returned."""

    def __init__(self, late):
        self.state = torch.zeros(2)
        self.calls = []
        self.made = []
        self._late = late

    def __call__(self, lengths):
        self.calls.append(lengths)
        made = torch.full((2,), math.nan)
        self.made.append(made)
        self._late.launch(lambda: made.copy_(self.state * 10))
        return made


def test_a_program_is_run_behind_what_was_launched_and_then_recorded(late, transfers):
    program = Program(late)
    late.launch(lambda: program.state.fill_(2))
    replay = transfers.record(program, (7, 8))
    assert program.calls == [(7, 8)] * 2
    run, recorded = program.made
    assert run.tolist() == [20, 20]
    assert recorded.isnan().all(), "what is recorded does not run"
    late.launch(lambda: program.state.fill_(3))
    got = replay((1, 2))
    assert got is recorded
    first = transfers.download(got)
    late.launch(lambda: program.state.fill_(4))
    second = transfers.download(replay((1, 3)))
    assert (first.read().tolist(), second.read().tolist()) == ([30, 30], [40, 40])
    assert len(program.calls) == 2, "a replay calls nothing"


def test_all_are_recorded_on_one_stream_into_one_memory(late, transfers):
    for bounds in ((4,), (2,), (1,)):
        transfers.record(Program(late), bounds)
    (pool, stream, mode), *others = late.captures
    assert others == [(pool, stream, mode)] * 2
    assert stream is not late.main
    assert mode == "thread_local", "threads that compute masks would break a recording"


@pytest.mark.parametrize(
    ("fault", "raised", "words"),
    [
        (RuntimeError("it waits\nand more"), NotRecordedError, r"recorded \(it waits\)$"),
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError, "full"),
    ],
)
def test_a_program_that_cannot_be_recorded_says_why(late, transfers, fault, raised, words):
    """If memory is short, that is all there is to say; whoever goes on does so where it was."""

    def program(lengths):
        if late.recording is not None:
            late.recording.broken = True
            raise fault

    with pytest.raises(raised, match=words):
        transfers.record(program, (1,))
    assert late.current is late.main
    transfers.record(Program(late), (1,))
