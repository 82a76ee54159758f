"""Which processors this worker runs on, where ``--worker-cpus`` says so.

Runs in the worker: at its start the whole process is confined to its processors, so that weights,
keys and values are in memory that is near them; once it is ready, each thread that computes is
pinned to one. torch and the kernels in C compute on the same threads, those of libgomp's team. All
others (of sockets, grammars, masks) run on any of the worker's processors.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial

from common.settings import Settings

_TEAM = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def own_cpus(settings: Settings, number: int) -> Sequence[int]:
    """Those of worker ``number``, counted through all replicas; none if none are named."""
    threads = settings.worker_threads
    return (settings.worker_cpus or [])[number * threads : (number + 1) * threads]


def confine(cpus: Sequence[int]) -> None:
    """The process, which has one thread yet, to these processors; to none is not at all."""
    if cpus:
        os.sched_setaffinity(0, cpus)


def pin(cpus: Sequence[int]) -> None:
    """The calling thread to the first of them, those that compute beside it to the others.

    None are pinned to none. Threads that the caller begins later inherit its place: see
    ``at_large``.
    """
    if not cpus:
        return
    openmp = ctypes.CDLL("libgomp.so.1")  # torch's, which is loaded already

    def take_place(_: int | None) -> None:
        os.sched_setaffinity(0, {cpus[openmp.omp_get_thread_num()]})

    openmp.GOMP_parallel(_TEAM(take_place), None, len(cpus), 0)


def at_large() -> Callable[[], None]:
    """For threads that begin later: each calls it, and runs where its maker may run now."""
    return partial(os.sched_setaffinity, 0, os.sched_getaffinity(0))
