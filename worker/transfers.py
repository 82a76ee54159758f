"""Between the host and the device: numbers there, results back, a program recorded and replayed.

Runs in the worker. The one place that knows of pinned memory, events and CUDA graphs; who computes
knows this interface, and tests run everything above it on a CPU. Nothing here but
``Download.read`` and ``Recorder.record`` waits for the device.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from worker.errors import NotRecordedError
from worker.shortage import is_shortage

Integers = npt.NDArray[np.int64]

Program = Callable[[tuple[int, ...]], torch.Tensor]
"""From the lengths of its sequences, as the host knows them, to a tensor."""

_ALIGNMENT = 16
"""Numbers of a transfer start at multiples of so many, 128 bytes, as kernels like it."""


class Download(Protocol):
    """A tensor on its way to the host."""

    def read(self) -> torch.Tensor:
        """On the host; waits until everything before it on the device is done."""


class Transfers(Protocol):
    """One device's."""

    device: torch.device

    def upload(self, arrays: Sequence[Integers]) -> list[torch.Tensor]:
        """All of these in one transfer, as int64 tensors of their shapes."""

    def download(self, tensor: torch.Tensor) -> Download:
        """A copy of it; the tensor may be overwritten by what is launched later."""

    def record(self, program: Program, bounds: tuple[int, ...]) -> Program:
        """The same program, launched as one; it is run here, with lengths of at most ``bounds``.

        What comes out of it is overwritten by its next run, and so are those of others recorded
        here: they share their memory. Raises NotRecordedError if it can only be run.
        """


class _There:
    """A download that has arrived."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def read(self) -> torch.Tensor:
        """As ``Download.read``."""
        return self._tensor


class HostTransfers:
    """The device is the CPU: nothing moves, and programs are called."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def upload(self, arrays: Sequence[Integers]) -> list[torch.Tensor]:
        """The same memory."""
        return [torch.from_numpy(array) for array in arrays]

    def download(self, tensor: torch.Tensor) -> Download:
        """As ``Transfers.download``."""
        return _There(tensor.clone())

    def record(self, program: Program, bounds: tuple[int, ...]) -> Program:
        """The program itself."""
        return program


class _OnItsWay:
    """RACE: the device writes, the host reads; the event lies between them."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._done: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._done.record()

    def read(self) -> torch.Tensor:
        """As ``Download.read``; the thread sleeps, it does not spin."""
        self._done.synchronize()
        return self._host


class CudaTransfers:
    """Through pinned memory, on the current stream.

    RACE: the device reads a pinned buffer after this process has let it go. torch's allocator of
    pinned memory keeps it until the copies that were made from it are done, so every transfer
    takes a fresh one and none is written twice.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._aside: Any = None
        self._pool: Any = None

    def upload(self, arrays: Sequence[Integers]) -> list[torch.Tensor]:
        """As ``Transfers.upload``."""
        starts = [0]
        for array in arrays:
            starts.append(starts[-1] + -(-array.size // _ALIGNMENT) * _ALIGNMENT)
        packed = torch.empty(starts[-1], dtype=torch.int64, pin_memory=True)
        view = packed.numpy()
        for start, array in zip(starts, arrays, strict=False):
            view[start : start + array.size] = array.ravel()
        moved = packed.to(self.device, non_blocking=True)
        return [
            moved[start : start + array.size].view(array.shape)
            for start, array in zip(starts, arrays, strict=False)
        ]

    def download(self, tensor: torch.Tensor) -> Download:
        """As ``Transfers.download``."""
        return _OnItsWay(tensor)

    def record(self, program: Program, bounds: tuple[int, ...]) -> Program:
        """A CUDA graph. Run before, on the side, so that kernels are compiled and tables made.

        PERF: on one stream, all of them: cuBLAS keeps a workspace for each stream that it has ever
        been used on (32 MiB on Hopper), and graphs share memory only if one stream recorded them.
        """
        if self._aside is None:
            self._aside = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        aside, main = self._aside, torch.cuda.current_stream(self.device)
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            program(bounds)
        main.wait_stream(aside)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(
            graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"
        )
        try:
            # A capture that cannot be ended leaves its stream the current one.
            with torch.cuda.stream(main), capture:
                output = program(bounds)
        except Exception as error:
            first = error.__context__ or error  # the other one is that of the end
            if is_shortage(first):
                raise first from None
            said = str(first).partition("\n")[0] or type(first).__name__
            raise NotRecordedError(f"its code cannot be recorded ({said})") from error

        def replay(_: tuple[int, ...]) -> torch.Tensor:
            graph.replay()
            return output

        return replay


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on the device, without waiting; the same one if that is the CPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def transfers_of(device: torch.device) -> Transfers:
    """Those of this device."""
    return HostTransfers() if device.type == "cpu" else CudaTransfers(device)
