"""Models in several processes: the same tokens as in one, and what fails fails alone."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import zmq

from common.errors import StartupError
from tests.worker.driver import Driver
from tests.worker.models.comparing import CPU, prompt
from tests.worker.models.families import FAMILIES
from tests.worker.parallel.follower import FAILS, UNLUCKY
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.cache import KVCache, part_of
from worker.loading import load_model
from worker.parallel.group import Group
from worker.parallel.leader import Leader
from worker.parallel.rendezvous import Crew
from worker.sharding import Sharding

ROOT = Path(__file__).parents[3]
WAIT_S = 60
BLOCKS = 64
IN_FOUR = ("llama_odd_vocabulary", "olmo2", "phi3", "gemma3", "qwen3_moe", "gpt2", "gpt_neox")
LLAMAS = {
    "llama_odd_vocabulary": {"vocab_size": 259},
    "llama_tied": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    FAILS: {},
}


class Groups:
    """The followers of one size, and a leader for each model in turn."""

    def __init__(self, root: Path, size: int, names: list[str]) -> None:
        self.size = size
        self.names = names
        self.runtime = tempfile.TemporaryDirectory()
        self.directories = [root / name for name in names]
        self.context = zmq.Context()
        arguments = [str(directory) for directory in self.directories]
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.worker.parallel.follower", self.runtime.name,
                 str(shard), str(size), *arguments],
                cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            for shard in range(1, size)
        ]  # fmt: skip

    def leader(self, name: str) -> Leader:
        crew = Crew(self.context, self.runtime.name, self.names.index(name), self.size)
        return Leader(crew, Group(0, self.size, CPU))

    def end(self) -> list[int]:
        try:
            return [process.wait(WAIT_S) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
            self.context.term()
            self.runtime.cleanup()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for name, configuration in FAMILIES.items():
        write_tiny(made / name, configuration(), seed=3)
    for name, changes in LLAMAS.items():
        write_tiny_llama(made / name, **changes)
    return made


@pytest.fixture(scope="module")
def pairs(root: Path) -> Iterator[Groups]:
    groups = Groups(root, 2, [*FAMILIES, *LLAMAS])
    yield groups
    assert groups.end() == [0]


@pytest.fixture(scope="module")
def fours(root: Path) -> Iterator[Groups]:
    groups = Groups(root, 4, list(IN_FOUR))
    yield groups
    assert groups.end() == [0, 0, 0]


def texts(driver: Driver) -> dict[int, tuple[list[int], list[float]]]:
    """Several sequences, some of them in chunks; one is joined by others on its way."""
    driver.add(0, prompt(75), 12, prefill_logprobs=True)
    driver.step()
    driver.dispatch(add=[driver.new(n, prompt(10 * n, n), 12) for n in (1, 2, 3)])
    driver.run()
    assert not any(record.error for record in driver.records.values())
    scored = driver.records[0].started
    assert scored is not None
    assert len(scored.prefill_logprobs) == 74
    driver.records[0].logprobs += scored.prefill_logprobs
    return {n: (record.ids, record.logprobs) for n, record in driver.records.items()}


def alone(root: Path, name: str) -> Driver:
    model = load_model(str(root / name), device=CPU, dtype=torch.float32)
    cache = KVCache(model.configuration, BLOCKS, CPU, torch.float32)
    return Driver(model, cache, blocks=BLOCKS)


def together(root: Path, name: str, leader: Leader, runner: str = "host") -> Driver:
    sharding = leader.sharding
    model = load_model(str(root / name), device=CPU, dtype=torch.float32, sharding=sharding)
    leader.make_cache(BLOCKS)
    cache = KVCache(part_of(model.configuration, sharding), BLOCKS, CPU, torch.float32)
    led = leader.lead(model) if runner == "host" else model
    return Driver(led, cache, blocks=BLOCKS, runner=runner)


def compare(root: Path, name: str, groups: Groups) -> None:
    wanted = texts(alone(root, name))
    leader = groups.leader(name)
    got = texts(together(root, name, leader))
    leader.close()
    assert not leader._group.formed
    for number, (ids, logprobs) in wanted.items():
        assert got[number][0] == ids
        assert got[number][1] == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize("name", [*FAMILIES, "llama_odd_vocabulary", "llama_tied"])
def test_two_shards_say_what_one_says(root: Path, name: str, pairs: Groups) -> None:
    compare(root, name, pairs)


@pytest.mark.parametrize("name", IN_FOUR)
def test_four_shards_say_what_one_says(root: Path, name: str, fours: Groups) -> None:
    compare(root, name, fours)


def test_a_follower_that_is_short_of_memory_costs_one_request(root: Path, pairs: Groups) -> None:
    """Both shards survive, agree on what to do next, and the others' texts are the right ones."""
    driver = alone(root, FAILS)
    lucky = [[token for token in prompt(20, n) if token != UNLUCKY] for n in range(3)]
    driver.dispatch(add=[driver.new(n, ids, 3) for n, ids in enumerate(lucky)])
    driver.run()
    wanted = {n: driver.records[n].ids for n in range(3)}
    assert all(UNLUCKY not in ids for ids in wanted.values())
    leader = pairs.leader(FAILS)
    driver = together(root, FAILS, leader)
    driver.dispatch(add=[driver.new(n, ids, 3) for n, ids in enumerate(lucky)])
    driver.dispatch(add=[driver.new(9, [1, UNLUCKY, 2], 3)])
    driver.run()
    leader.close()
    assert driver.records[9].error
    assert {n: driver.records[n].ids for n in range(3)} == wanted


def test_a_model_that_cannot_be_cut_is_refused(root: Path) -> None:
    with pytest.raises(StartupError, match=r"over 3 shards \(4 attention heads.*may be 2, 4"):
        load_model(str(root / "qwen2"), device=CPU, dtype=torch.float32, sharding=Sharding(0, 3))


def test_whoever_loses_its_leader_ends(root: Path) -> None:
    groups = Groups(root, 2, ["qwen2"])
    code = (
        "import sys, torch, zmq\n"
        "from worker.parallel.group import Group\n"
        "from worker.parallel.leader import Leader\n"
        "from worker.parallel.rendezvous import Crew\n"
        "crew = Crew(zmq.Context(), sys.argv[1], 0, 2)\n"
        "leader = Leader(crew, Group(0, 2, torch.device('cpu')))\n"
        "print(*leader.followers, flush=True)\n"
        "leader.least(1, 0)\n"
        "sys.stdin.read()\n"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", code, groups.runtime.name],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert leader.stdout is not None
        assert int(leader.stdout.readline()) == groups.processes[0].pid
        leader.send_signal(signal.SIGKILL)
    finally:
        leader.kill()
        leader.communicate()
    assert groups.end() == [1]
