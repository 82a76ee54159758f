"""Adapters of a model that two processes share: pairs are cut as their layers are."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.worker.adapters import write_adapter
from tests.worker.driver import RUNNERS, Driver
from tests.worker.models.comparing import CPU, prompt
from tests.worker.models.families import FAMILIES
from tests.worker.parallel.drivers import BLOCKS
from tests.worker.parallel.follower import AHEAD, adapters_of
from tests.worker.parallel.groups import Groups
from tests.worker.tiny import write_tiny
from worker.ahead.runner import AheadRunner
from worker.cache import KVCache, part_of
from worker.kernels.sampling import UNSEEN
from worker.loading import load_model
from worker.sharding import WHOLE, Sharding

NAMES = ("qwen3", "phi3", "gemma2", "mixtral", "gpt2", "gpt_neox")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for name in NAMES:
        for directory in (made / name, made / f"ahead-{name}"):
            write_tiny(directory, FAMILIES[name](), seed=3)
            write_adapter(directory / "a", directory, rank=3, seed=1)
            write_adapter(directory / "b", directory, rank=5, seed=2, targets=r"attn|attention")
    return made


@pytest.fixture(scope="module")
def groups() -> Iterator[Groups]:
    with Groups(2) as groups:
        yield groups


def load(directory: Path, sharding: Sharding = WHOLE):
    adapters = adapters_of(str(directory))
    return load_model(
        str(directory), device=CPU, dtype=torch.float32, sharding=sharding, adapters=adapters
    )


def tokens(driver: Driver, digests: list[str]) -> list[list[int]]:
    for number, digest in enumerate(digests):
        driver.add(number, prompt(11 * number + 7, number), 10, adapter=digest)
    driver.run()
    assert not any(record.error for record in driver.records.values())
    return [driver.records[number].ids for number in range(len(digests))]


@pytest.mark.parametrize("name", [*NAMES, "ahead-qwen3"])
def test_two_shards_say_what_one_says(
    root: Path, name: str, groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = root / name
    adapters = tuple([adapter.digest for adapter in adapters_of(str(directory))])
    digests = [adapters[0], "", adapters[1], adapters[0]]
    model = load(directory)
    cache = model.make_cache(model.configuration, BLOCKS, CPU)
    wanted = tokens(Driver(model, cache, blocks=BLOCKS, adapters=adapters), digests)
    with groups.led(directory) as leader:
        part = load(directory, leader.sharding)
        leader.make_cache(BLOCKS)
        shape = part_of(part.configuration, leader.sharding)
        cache = KVCache(shape, BLOCKS, CPU, torch.float32)
        ahead = name.startswith("ahead")
        if ahead:
            runner = partial(AheadRunner, others=leader.go_ahead(), **AHEAD)
            monkeypatch.setitem(RUNNERS, "group", {"make_runner": runner, "sampling": UNSEEN})
        driver = Driver(
            part if ahead else leader.lead(part),
            cache,
            blocks=BLOCKS,
            runner="group" if ahead else "host",
            adapters=adapters,
        )
        got = tokens(driver, digests)
    assert got == wanted
