import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from common.settings import Settings
from worker.pinning import at_large, own_cpus

ALLOWED = sorted(os.sched_getaffinity(0))
PAIR = (ALLOWED[0], ALLOWED[-1])  # the same twice on a machine with one processor

PINNED = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import torch
from worker.pinning import at_large, confine, pin

def places():
    threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    return {thread: os.sched_getaffinity(thread) for thread in threads}

cpus = [int(word) for word in sys.argv[1:]]
torch.set_num_threads(len(cpus))
before = set(places())
everywhere = os.sched_getaffinity(0)
for nothing in (confine, pin):
    nothing([])
assert os.sched_getaffinity(0) == everywhere
confine(cpus)
pool = ThreadPoolExecutor(1, initializer=at_large())
pin(cpus)
torch.rand(1 << 20).exp()  # more than a thread's worth: the team computes
team = {thread: place for thread, place in places().items() if thread not in before}
assert os.sched_getaffinity(0) == {cpus[0]}
assert list(team.values()) == [{cpu} for cpu in cpus[1:]], team
assert pool.submit(os.sched_getaffinity, 0).result() == set(cpus)
"""


def test_each_thread_that_computes_has_a_processor_and_others_run_anywhere():
    command = [sys.executable, "-c", PINNED, *map(str, PAIR)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_workers_share_out_what_was_listed_in_order():
    listed = [4, 5, 8, 9, 2, 3]
    settings = Settings(model_id="m", model_dir="d", worker_cpus=listed, worker_threads=2)
    assert [own_cpus(settings, number) for number in range(3)] == [[4, 5], [8, 9], [2, 3]]
    assert own_cpus(Settings(model_id="m", model_dir="d"), 0) == []


def test_a_thread_at_large_runs_where_its_maker_could():
    with ThreadPoolExecutor(1, initializer=at_large()) as pool:
        assert pool.submit(os.sched_getaffinity, 0).result() == set(ALLOWED)
