"""What kernels would compute on the emulated device, computed on the CPU in their order.

torch does all that it does on a GPU, in earnest: it checks devices, dtypes and shapes, allocates
from its caching allocator, records graphs. Only its kernels do nothing. Beside each call a closure
is queued on the current stream, which calls the same operator on CPU tensors over the same memory.
Kernels in Triton are compiled, and launched into nothing; beside them, Triton's interpreter runs.

Not shown by any of this: what a compiled kernel computes, kernels that overlap, speed.
"""

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from triton.runtime import interpreter, jit

from tests.emulated.build import NAME
from tests.worker.kernels.triton import short_floats

aten = torch.ops.aten

_library = ctypes.CDLL(NAME)
_library.emulated_call.argtypes = [ctypes.c_void_p, ctypes.c_long]
_library.emulated_wait.argtypes = [ctypes.c_void_p]

# By what an operator does with memory, beyond what its schema says.
_NOTHING = {aten.set_, aten.resize_, aten.record_stream, aten._local_scalar_dense, aten.is_pinned}
_UNWRITTEN = {
    aten.empty, aten.empty_strided, aten.empty_like, aten.new_empty, aten.new_empty_strided,
}  # fmt: skip
_COPIES = {aten.copy_, aten._to_copy}
_READ_BY_HOST = {
    aten.bincount, aten.equal, aten.masked_select, aten.nonzero, aten.repeat_interleave,
}  # fmt: skip
"""Their result, or its shape, is something that the host has to read."""

_COMPOSITE = "CompositeImplicitAutograd"


class Work:
    """Closures by their number, and what has gone wrong in them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._closures: dict[int, tuple[Callable[[], Any], bool]] = {}
        self.failures: list[BaseException] = []
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_long)(self._run)
        _library.emulated_compute(self._callback)

    def enqueue(self, closure: Callable[[], Any]) -> None:
        """On the current stream, or into the capture on it."""
        number = next(self._numbers)
        self._closures[number] = closure, torch.cuda.is_current_stream_capturing()
        _library.emulated_call(torch.cuda.current_stream().cuda_stream, number)

    def wait(self) -> None:
        """For the current stream."""
        _library.emulated_wait(torch.cuda.current_stream().cuda_stream)

    def _run(self, number: int) -> None:
        closure, captured = self._closures[number]
        if not captured:
            del self._closures[number]
        try:
            with torch._C._DisableTorchDispatch(), torch.inference_mode():
                closure()
        except BaseException as problem:
            self.failures.append(problem)


work = Work()


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor over the same memory, which it does not own."""
    if tensor.device.type == "cpu":
        return tensor
    if tensor.numel() == 0:
        return torch.empty_like(tensor, device="cpu")
    storage = tensor.untyped_storage()
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    count = storage.nbytes() // tensor.dtype.itemsize
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=count)
    return flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _arguments(tree: Any) -> Any:
    """For the CPU: numbers of the host are those of now."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return on_host(tensor) if tensor.device.type == "cuda" else tensor.clone()

    tree = tree_map_only(torch.Tensor, moved, tree)
    tree = tree_map_only(torch.device, lambda _: torch.device("cpu"), tree)
    return tree_map_only(torch.Generator, lambda _: None, tree)


def _mm(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (a.float() @ b.float()).to(dtype)


def _histc(x: torch.Tensor, *bins: Any, **named: Any) -> torch.Tensor:
    return aten.histc(x.double(), *bins, **named).to(x.dtype)


_OF_CUDA_ONLY = {aten.mm.dtype: _mm, aten.histc.default: _histc}


class _Emulation(TorchDispatchMode):
    """A closure beside each operator on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if not any(_is_there(leaf) for leaf in leaves):
            return func(*args, **kwargs)
        if func is aten.scaled_dot_product_attention.default:
            return self._attention(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE):
            with self:
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        packet = func.overloadpacket
        if packet in _READ_BY_HOST or (packet is aten.index and _has_masks(leaves)):
            return self._read_by_host(func, args, kwargs)
        result = func(*args, **kwargs)
        found = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        written = func._schema.is_mutable
        views = any(r.alias_info is not None for r in func._schema.returns)
        if packet in _NOTHING or (views and not written):
            return result
        if packet in _UNWRITTEN:
            for tensor in found:
                self._spoil(tensor)
        elif packet in _COPIES:
            self._copy(func, args, kwargs, found[0])
        elif written:
            given = _arguments(args), _without_pins(_arguments(kwargs))
            work.enqueue(lambda: func(*given[0], **given[1]))
        else:
            self._fill(func, args, kwargs, found)
        return result

    def _spoil(self, tensor: torch.Tensor) -> None:
        if tensor.device.type == "cuda" and tensor.numel() and tensor.is_contiguous():
            memory = on_host(tensor).view(torch.uint8)
            work.enqueue(lambda: memory.fill_(0xFF))

    def _copy(self, func: Any, args: Any, kwargs: Any, target: torch.Tensor) -> None:
        """RACE: pinned memory is read, or written, when the device comes to it."""
        source = args[1] if func.overloadpacket is aten.copy_ else args[0]
        pageable = source.device.type == "cpu" and not source.is_pinned()
        to, given = on_host(target), source.clone() if pageable else on_host(source)
        work.enqueue(lambda: to.copy_(given))
        unwaiting = kwargs.get("non_blocking", len(args) > 2 and args[2])
        if target.device.type == "cpu" and not (unwaiting and target.is_pinned()):
            work.wait()

    def _fill(self, func: Any, args: Any, kwargs: Any, found: list[torch.Tensor]) -> None:
        targets = [on_host(tensor) for tensor in found]
        given, named = _arguments(args), _without_pins(_arguments(kwargs))

        def compute() -> None:
            results = tree_leaves(_OF_CUDA_ONLY.get(func, func)(*given, **named))
            assert [x.shape for x in targets] == [x.shape for x in results], func
            for target, result in zip(targets, results, strict=True):
                target.copy_(result)

        work.enqueue(compute)
        if any(tensor.device.type == "cpu" for tensor in found):
            work.wait()

    def _read_by_host(self, func: Any, args: Any, kwargs: Any) -> Any:
        if torch.cuda.get_sync_debug_mode() == 2:
            raise RuntimeError(f"{func} waits for the device")
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"{func} waits for the device while a graph is recorded")
        work.wait()
        result = func(*_arguments(args), **_arguments(kwargs))
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to("cuda"), result)

    def _attention(self, queries: torch.Tensor, *others: Any, **kwargs: Any) -> torch.Tensor:
        shape = (*queries.shape[:-1], others[1].shape[-1])
        with self:
            result = torch.empty(shape, dtype=queries.dtype, device=queries.device)
        self._fill(aten.scaled_dot_product_attention.default, (queries, *others), kwargs, [result])
        return result


def _is_there(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        return leaf.device.type == "cuda"
    return isinstance(leaf, torch.device) and leaf.type == "cuda"


def _has_masks(leaves: list[Any]) -> bool:
    return any(isinstance(leaf, torch.Tensor) and leaf.dtype is torch.bool for leaf in leaves[1:])


def _without_pins(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "pin_memory"}


class _Interpreter:
    """Triton's, beside the compiled kernels."""

    def __init__(self) -> None:
        self._kernels: dict[Any, Any] = {}
        self._patched: dict[int, Any] = {}
        self._patch = interpreter._patch_lang
        self._launch = jit.JITFunction.run

    def start(self) -> None:
        """From here on."""
        interpreter._patch_lang = self._once
        builder = interpreter.InterpreterBuilder
        builder.create_dot = short_floats.multiplying(builder.create_dot)
        interpreter._convert_float = short_floats.convert
        jit.JITFunction.run = lambda kernel, *args, **kwargs: self._run(kernel, *args, **kwargs)
        jit.JITFunction.__call__ = lambda helper, *args, **kwargs: self._call(helper, args, kwargs)

    def _of(self, kernel: Any) -> Any:
        if kernel.fn not in self._kernels:
            self._kernels[kernel.fn] = interpreter.InterpretedFunction(kernel.fn)
        return self._kernels[kernel.fn]

    def _run(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        compiled = self._launch(kernel, *args, grid=grid, warmup=warmup, **kwargs)
        if warmup:
            return compiled
        given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        if callable(grid):
            grid = grid(given)
        if "EARLY" in kernel.arg_names:  # the interpreter has nothing to wait for
            given["EARLY"] = False
        given = tree_map_only(torch.Tensor, on_host, given)
        work.enqueue(lambda: self._of(kernel).run(grid=grid, warmup=False, **given))
        return compiled

    def _call(self, helper: Any, args: Any, kwargs: Any) -> Any:
        """One function of a kernel calls another."""
        self._once(helper.fn)
        return self._of(helper).rewrite()(*args, **kwargs)

    def _once(self, function: Any) -> Any:
        """Patching Triton's language takes milliseconds: a module once for each launch."""
        outermost = not self._patched
        place = id(function.__globals__)
        if place not in self._patched:
            self._patched[place] = self._patch(function)
        return _Scope(self._patched if outermost else {})


class _Scope:
    """What has been patched since."""

    def __init__(self, patched: dict[int, Any]) -> None:
        self._patched = patched

    def restore(self) -> None:
        """Last first."""
        for scope in reversed(self._patched.values()):
            scope.restore()
        self._patched.clear()


def start() -> None:
    """In this thread, and in all that begin later."""
    _Interpreter().start()
    _Emulation().__enter__()
    run = threading.Thread.run

    def emulated(thread: threading.Thread) -> None:
        with _Emulation():
            run(thread)

    threading.Thread.run = emulated
