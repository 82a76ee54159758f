"""The C kernels for CPUs: compiled once per machine, kept, loaded.

Runs in the worker, once. Owns which instruction set they are compiled for, where the result is kept
and the types of its functions. Whatever is missing (a compiler, room, permission to use AMX, a
processor that is known here) ends in None and a line in the log: everything also runs on torch.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.kernels.cpu.keeping import alone, is_whole, keep, own_directory, scratch

_SOURCES = Path(__file__).parent / "native"
_BUILT = Path(__file__).parent / "built"
"""Kernels that an image brings along: it is built on another machine, and has no compiler."""
_COMPILERS = ("gcc", "cc")
"""Not clang: its OpenMP would bring threads of its own beside torch's, which are libgomp's."""
_FLAGS = (
    *("-std=gnu11", "-O2", "-fopenmp", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-ffp-contract=fast", "-Wno-psabi"),
)
_COMPILE_LIMIT_S = 120

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Variant:
    """An instruction set that the kernels are compiled for."""

    name: str
    needs: frozenset[str]
    """As Linux spells them in /proc/cpuinfo."""
    flags: tuple[str, ...]
    bfloat16: bool
    """Whether it multiplies in bfloat16: without, there are kernels for float32 only."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Types of the numbers that there are kernels for."""
        return ("bf16", "f32") if self.bfloat16 else ("f32",)

    @property
    def sources(self) -> tuple[str, ...]:
        """The C files, first those that take a compiler longest."""
        typed = (
            f"{prefix}{element}.c"
            for prefix in ("quantized_", "", "linear_", "layers_")
            for element in self.elements
        )
        plain = ("attention_plan.c", "linear_pack.c", "sampling.c", "team.c")
        return (*typed, "f32_bf16.c", *plain)


ELEMENTS = {torch.bfloat16: "bf16", torch.float32: "f32"}
"""Types of numbers that there are kernels for, and what the names of those end in."""


def cached_elements(dtype: torch.dtype, kv_dtype: torch.dtype) -> str | None:
    """What the names of attention end in that computes in the one and caches in the other."""
    if dtype == kv_dtype:
        return ELEMENTS.get(dtype)
    return "f32_bf16" if (dtype, kv_dtype) == (torch.float32, torch.bfloat16) else None


_V3 = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_BFLOAT16 = _V4 | {"avx512_bf16"}
VARIANTS = (
    Variant(
        "amx",
        _BFLOAT16 | {"avx512vbmi", "amx_tile", "amx_bf16"},
        ("-march=x86-64-v4", "-mavx512bf16", "-mavx512vbmi", "-mamx-tile", "-mamx-bf16"),
        True,
    ),
    Variant("avx512-bf16", _BFLOAT16, ("-march=x86-64-v4", "-mavx512bf16"), True),
    Variant("avx512", _V4, ("-march=x86-64-v4",), False),
    Variant("avx2", _V3, ("-march=x86-64-v3",), False),
)
"""Best first."""

_ADDRESS, _WHOLE = ctypes.c_void_p, ctypes.c_int64
_ATTEND = ((*[_ADDRESS] * 6, _WHOLE, _ADDRESS), None)
_SIGNATURES = {
    "linear_prepare": ((), ctypes.c_int),
    "linear_pack": ((_ADDRESS, _ADDRESS, *[_WHOLE] * 4), None),
    "linear_scratch_elements": ((_WHOLE, _WHOLE), _WHOLE),
    "linear": ((*[_ADDRESS] * 4, _WHOLE), None),
    "linear_quantized": ((*[_ADDRESS] * 3, _WHOLE), None),
    "attention_plan": ((_ADDRESS, _WHOLE, _ADDRESS, _ADDRESS, _ADDRESS), _WHOLE),
    "attend": _ATTEND,
    "attend_f32_bf16": _ATTEND,
    "norm": ((*[_ADDRESS] * 4, _WHOLE, _WHOLE), None),
    "activate": ((_ADDRESS, _ADDRESS, _ADDRESS, _WHOLE, _WHOLE), None),
    "decoder_layers": (
        (
            *(_ADDRESS, _WHOLE, _ADDRESS, _ADDRESS, _WHOLE, _WHOLE, _ADDRESS, _WHOLE),
            *(_ADDRESS, _ADDRESS, _ADDRESS),
        ),
        None,
    ),
    "summarize": ((*[_ADDRESS] * 3, *[_WHOLE] * 3), None),
}
_BFLOAT16_ONLY = ("linear_prepare",)
_TYPED = (
    *("attend", "norm", "activate", "linear", "linear_scratch_elements", "linear_quantized"),
    "decoder_layers",
)
"""Compiled for each type of elements: their names end in the type's."""


class Library:
    """The functions, as attributes; the C files say what each does."""

    def __init__(self, path: Path, variant: Variant) -> None:
        """OSError if it cannot be loaded."""
        self.path = path
        self.variant = variant
        self._loaded = ctypes.CDLL(str(path))
        for name, (arguments, result) in _SIGNATURES.items():
            if name in _TYPED:
                names = [f"{name}_{element}" for element in variant.elements]
            else:
                names = [name] if variant.bfloat16 or name not in _BFLOAT16_ONLY else []
            for exported in names:
                function = getattr(self._loaded, exported)
                function.argtypes, function.restype = arguments, result
                setattr(self, exported, function)

    def __getattr__(self, name: str) -> Callable[..., int]:
        raise AttributeError(name)  # for the type checker: functions are set above


def load(directories: Sequence[Path], *, cpu_flags: frozenset[str] | None = None) -> Library | None:
    """The kernels for this machine, from the first of the directories that has or takes them."""
    flags = read_cpu_flags() if cpu_flags is None else cpu_flags
    for variant in VARIANTS:
        if variant.needs <= flags:
            library = _load(variant, directories)
            if library is None or not variant.bfloat16 or library.linear_prepare() == 0:
                return library
            _log.info("the system does not let this process use AMX")
    _log.info("no C kernels for this processor: it runs on torch's operators")
    return None


def read_cpu_flags() -> frozenset[str]:
    """What this processor can do, as Linux tells; empty where nobody tells."""
    if platform.machine() != "x86_64":
        return frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def _load(variant: Variant, directories: Sequence[Path]) -> Library | None:
    name = _file_name(variant)
    for directory in (_BUILT, *directories):
        kept = directory / name
        try:
            if directory != _BUILT:
                kept = own_directory(directory) / name
            if not is_whole(kept):
                if directory == _BUILT:
                    continue
                with alone(kept.parent):
                    if not is_whole(kept):  # another worker may have made it meanwhile
                        compile_to(kept, variant)
            return Library(kept, variant)
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            _log.info("no C kernels from %s: %s", directory, _reason(error))
    return None


def build_all(directory: Path = _BUILT) -> list[Path]:
    """The kernels for every processor: for an image. OSError or SubprocessError as below."""
    paths = [directory / _file_name(variant) for variant in VARIANTS]
    for path, variant in zip(paths, VARIANTS, strict=True):
        compile_to(path, variant)
    return paths


def compile_to(path: Path, variant: Variant) -> None:
    """Compile the kernels; whoever looks sees the whole file or none.

    OSError or SubprocessError if there is no compiler, or it fails.
    """
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise FileNotFoundError("there is no C compiler (gcc): torch's operators are slower")
    _log.info("compiling kernels in C into %s: this takes some seconds", path.parent)
    with scratch(path.parent) as place:
        made, command = place / path.name, [compiler, *_FLAGS, *variant.flags]
        objects = {source: str(place / f"{source}.o") for source in variant.sources}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for a compiler of its own
            commands = [
                [*command, "-c", str(_SOURCES / source), "-o", to] for source, to in objects.items()
            ]
            list(pool.map(_compile, commands))
        _compile([*command, *objects.values(), "-o", str(made), "-lm"])
        keep(made, path)


def _compile(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_LIMIT_S)  # noqa: S603 - our own words


def _file_name(variant: Variant) -> str:
    """With a digest of everything that the result depends on."""
    digest = hashlib.sha256(" ".join((*_FLAGS, *variant.flags)).encode())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"kernels-{variant.name}-{digest.hexdigest()[:16]}.so"


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said: bytes = error.stderr
        first = said.decode(errors="replace").strip().partition("\n")[0]
        return first or str(error)  # one that is killed says nothing
    return str(error)
