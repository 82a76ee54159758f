"""Memory that stays, in a process of its own: what is set there cannot be undone."""

import subprocess
import sys

_PROGRAM = """
import ctypes, resource
from worker.heap import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def taken(size):
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    before = faults()
    place = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(place, 1, size)
    libc.free(place)
    return faults() - before

libc = ctypes.CDLL(None)
size = 64 << 20
taken(size)
before = taken(size)
keep_freed_memory()
taken(size)
print(before, taken(size), taken(size // 2))
"""


def test_what_a_step_has_freed_is_there_for_the_next():
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60
    )
    before, same, less = map(int, done.stdout.split())
    assert before > 100  # as many as there are pages, or huge ones, more or less
    assert same < 50
    assert less < 50
