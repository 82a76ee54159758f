"""A GPU that is not there: its tensors have a device and a shape, and no numbers (FakeTensor).

What runs on it is the Python that a GPU would run, up to the launch of each kernel. It shows what a
CPU cannot: a tensor of the host among those of the device, a copy that is waited for, a value that
is read, a kernel that is handed what lies on the host. What kernels compute has tests of its own.
"""

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

from tests.worker.ahead.fake_numbers import Counts, replace_numbers
from worker.kernels.triton import coded_experts, experts, linear

GPU = torch.device("cuda")
_CUDA, _LAZY = 1, 17
"""Of torch's types of devices: the second counts no devices on any machine."""
_COPIES = {"to", "_to_copy", "copy_"}
_MOST_PROGRAMS = 65_535
"""In the second and third dimension of a grid."""


@contextmanager
def fake_gpu(monkeypatch) -> Iterator[set]:
    """Within, ``cuda`` is a device, and kernels look at what they are given and do nothing.

    Numbers are made up where somebody needs them (``fake_numbers``). Yields the forms in which
    kernels are launched: Triton compiles each anew.
    """
    forms: set = set()
    properties = SimpleNamespace(multi_processor_count=132, shared_memory_per_block_optin=227 << 10)

    def launch(kernel, *given, grid, warmup, **options):
        _check(kernel, given, grid)
        forms.add(_form(kernel, given, options))

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(InterpretedFunction, "run", launch)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(linear, "in_turn_ms", _faster_in_triton())
    for module in (experts, coded_experts):
        monkeypatch.setattr(module, "places_of", _no_places)
    replace_numbers(monkeypatch)
    with _guard(), FakeTensorMode(allow_non_fake_inputs=True), _Pinning(), Counts():
        yield forms


def _faster_in_triton() -> Callable[..., float]:
    """What calls take that are compared, ours first: both are made."""
    times_ms = cycle((1.0, 2.0))

    def timed(transfers, calls):
        for call in calls:
            call()
        return next(times_ms)

    return timed


def _no_places(tensors):
    """What has no numbers lies nowhere."""
    return torch.zeros(len(tensors), dtype=torch.int64, device=GPU)


@contextmanager
def _guard() -> Iterator[None]:
    """Indexing a device's tensor asks for a guard of that device.

    Builds of torch with CUDA have one that does nothing for machines without a GPU; here it is put
    where a build without CUDA has none.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    name = "_ZN3c104impl26device_guard_impl_registryE"
    registry = (ctypes.c_void_p * (_LAZY + 1)).in_dll(library, name)
    before = registry[_CUDA]
    registry[_CUDA] = before or registry[_LAZY]
    torch._C._ensureCUDADeviceGuardSet()
    try:
        yield
    finally:
        registry[_CUDA] = before


def _check(kernel, given, grid) -> None:
    """Everything is on the device, numbers are Python's, programs are not too many."""
    for name, value in zip(kernel.arg_names, given, strict=False):
        if isinstance(value, torch.Tensor):
            assert value.device.type == "cuda", f"{kernel.fn.__name__}: {name} is on the host"
        else:
            assert type(value) in (int, float), f"{kernel.fn.__name__}: {name} is {value!r}"
    assert all(type(count) is int and count > 0 for count in grid), grid
    assert all(count <= _MOST_PROGRAMS for count in grid[1:]), grid


def _form(kernel, given, options) -> tuple:
    """What Triton tells launches apart by: constants, types, what 16 divides, and ones."""
    free = kernel.kwargs["do_not_specialize"] or ()
    named = zip(kernel.arg_names, given, strict=False)
    kinds = [_kind(value, special=name not in free) for name, value in named]
    return (kernel.fn.__name__, *kinds, *sorted(options.items()))


def _kind(value, *, special: bool) -> tuple:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.storage_offset() * value.element_size() % 16 == 0
    if isinstance(value, float):
        return (float,)
    wide = abs(value) >> 31 > 0
    return (int, wide, special and value % 16 == 0, special and value == 1)


class Copies:
    """``with copies:`` counts those between host and device into ``found``; a wait for each.

    A copy that is not waited for comes from pinned memory, and says so. ``recorded``: it counts,
    too, as a replay would read the host's memory of the time of the recording.
    """

    def __init__(self, *, recorded: bool = False) -> None:
        self.found: Counter[str] = Counter()
        self._mode = _Copying(self.found, recorded)

    def __enter__(self) -> "Copies":
        self._mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._mode.__exit__(*error)


class _Pinning(TorchFunctionMode):
    """A fake tensor cannot be pinned: what stands for it has no numbers.

    Of a single number, torch would look for the value, on a device that is not there.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.pin_memory:
            return torch.empty(args[0].shape, dtype=args[0].dtype)
        return function(*args, **(kwargs or {}))


class _Copying(TorchDispatchMode):
    def __init__(self, found: Counter[str], recorded: bool) -> None:
        super().__init__()
        self._found = found
        self._recorded = recorded

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in _COPIES:
            given = _named(function, args, kwargs or {})
            source = given["src"] if name == "copy_" else given["self"]
            waits = self._recorded or not given.get("non_blocking")
            if waits and source.device.type != result.device.type:
                self._found[f"{name} from {source.device.type}"] += 1
        return result


def _named(function, args, kwargs) -> dict:
    names = [argument.name for argument in function._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs


class FakeTransfers:
    """What goes to the device has no numbers there, what comes back is zeros."""

    device = GPU

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.replayed: list[int] = []
        """Places in ``recorded``."""

    def upload(self, arrays):
        return [torch.empty(array.shape, dtype=torch.int64, device=GPU) for array in arrays]

    def download(self, tensor):
        assert tensor.device.type == "cuda"
        return _Zeros(tensor.shape)

    def record(self, program, bounds):
        number = len(self.recorded)
        self.recorded.append(bounds)
        with Copies(recorded=True) as copies:
            program(bounds)
        assert not copies.found

        def replay(lengths):
            self.replayed.append(number)
            return program(lengths)

        return replay


class _Zeros:
    """In numpy: torch makes nothing but fakes."""

    def __init__(self, shape: torch.Size) -> None:
        self._shape = shape

    def read(self):
        return np.zeros(self._shape)
