"""Models in several processes: the same tokens as in one, and what fails fails alone."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.errors import StartupError
from tests.processes import started
from tests.worker.driver import Driver
from tests.worker.models.comparing import CPU, prompt
from tests.worker.models.families import FAMILIES
from tests.worker.parallel.drivers import alone, together
from tests.worker.parallel.follower import FAILS, UNLUCKY
from tests.worker.parallel.groups import Groups
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.loading import load_model
from worker.sharding import Sharding

ROOT = Path(__file__).parents[3]
IN_FOUR = ("llama_odd_vocabulary", "olmo2", "phi3", "gemma3", "qwen3_moe", "gpt2", "gpt_neox")
LLAMAS = {
    "llama_odd_vocabulary": {"vocab_size": 259},
    "llama_tied": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    FAILS: {},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for name, configuration in FAMILIES.items():
        write_tiny(made / name, configuration(), seed=3)
    for name, changes in LLAMAS.items():
        write_tiny_llama(made / name, **changes)
    return made


@pytest.fixture(scope="module")
def pairs() -> Iterator[Groups]:
    with Groups(2) as groups:
        yield groups


@pytest.fixture(scope="module")
def fours() -> Iterator[Groups]:
    with Groups(4) as groups:
        yield groups


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


def compare(directory: Path, groups: Groups) -> None:
    wanted = texts(alone(directory))
    with groups.led(directory) as leader:
        got = texts(together(directory, leader))
    assert not leader._group.formed
    for number, (ids, logprobs) in wanted.items():
        assert got[number][0] == ids
        assert got[number][1] == pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize("name", [*FAMILIES, "llama_odd_vocabulary", "llama_tied"])
def test_two_shards_say_what_one_says(root: Path, name: str, pairs: Groups) -> None:
    compare(root / name, pairs)


@pytest.mark.parametrize("name", IN_FOUR)
def test_four_shards_say_what_one_says(root: Path, name: str, fours: Groups) -> None:
    compare(root / name, fours)


def test_a_follower_that_is_short_of_memory_costs_one_request(root: Path, pairs: Groups) -> None:
    """Both shards survive, agree on what to do next, and the others' texts are the right ones."""
    driver = alone(root / FAILS)
    lucky = [[token for token in prompt(20, n) if token != UNLUCKY] for n in range(3)]
    driver.dispatch(add=[driver.new(n, ids, 3) for n, ids in enumerate(lucky)])
    driver.run()
    wanted = {n: driver.records[n].ids for n in range(3)}
    assert all(UNLUCKY not in ids for ids in wanted.values())
    with pairs.led(root / FAILS) as leader:
        driver = together(root / FAILS, leader)
        driver.dispatch(add=[driver.new(n, ids, 3) for n, ids in enumerate(lucky)])
        driver.dispatch(add=[driver.new(9, [1, UNLUCKY, 2], 3)])
        driver.run()
    assert driver.records[9].error
    assert {n: driver.records[n].ids for n in range(3)} == wanted


def test_a_model_that_cannot_be_cut_is_refused(root: Path) -> None:
    with pytest.raises(StartupError, match=r"over 3 shards \(4 attention heads.*may be 2, 4"):
        load_model(str(root / "qwen2"), device=CPU, dtype=torch.float32, sharding=Sharding(0, 3))


def test_whoever_loses_its_leader_ends(root: Path, pairs: Groups) -> None:
    code = (
        "import os, sys, torch, zmq\n"
        "from worker.parallel.group import Group\n"
        "from worker.parallel.leader import Leader\n"
        "from worker.parallel.rendezvous import Crew\n"
        "crew = Crew(zmq.Context(), sys.argv[1], int(sys.argv[2]), 2, os._exit)\n"
        "leader = Leader(crew, Group(0, 2, torch.device('cpu')))\n"
        "print(*leader.followers, flush=True)\n"
        "leader.least(1, 0)\n"
        "sys.stdin.read()\n"
    )
    replica = pairs.call(root / "qwen2")
    (follower,) = pairs.followers
    with started(
        [sys.executable, "-c", code, pairs.runtime_dir, str(replica)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as leader:  # fmt: skip
        assert leader.stdout is not None
        assert int(leader.stdout.readline()) == follower.process.pid
        leader.send_signal(signal.SIGKILL)
        assert pairs.end() == [1]
