"""Which processors this worker's computing threads run on, where ``--worker-cpus`` says so.

Runs in the worker, once, when it is ready. Owns nothing: the kernel keeps what threads are told.
torch and the kernels in C compute on the same threads, those of libgomp's team; all others (of
sockets, grammars, masks) run wherever the process may.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial

_TEAM = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def own_cpus(cpus: Sequence[int], threads: int, number: int) -> Sequence[int]:
    """Those of worker ``number``, counted through all replicas, of which each has ``threads``."""
    return cpus[number * threads : (number + 1) * threads]


def pin(cpus: Sequence[int]) -> None:
    """The calling thread to the first of them, those that compute beside it to the others.

    Threads that the caller begins later inherit its place: see ``at_large``.
    """
    openmp = ctypes.CDLL("libgomp.so.1")  # torch's, which is loaded already

    def take_place(_: int | None) -> None:
        os.sched_setaffinity(0, {cpus[openmp.omp_get_thread_num()]})

    openmp.GOMP_parallel(_TEAM(take_place), None, len(cpus), 0)


def at_large() -> Callable[[], None]:
    """For threads that begin later: each calls it, and runs where its maker may run now."""
    return partial(os.sched_setaffinity, 0, os.sched_getaffinity(0))
