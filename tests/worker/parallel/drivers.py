"""What drives one model: alone in this process, and as the leader of a group."""

from pathlib import Path

import torch

from tests.worker.driver import Driver
from tests.worker.models.comparing import CPU
from worker.cache import KVCache, part_of
from worker.loading import load_model
from worker.parallel.leader import Leader
from worker.speculation.speculation import Speculation

BLOCKS = 64


def alone(directory: Path) -> Driver:
    model = load_model(str(directory), device=CPU, dtype=torch.float32)
    cache = KVCache(model.configuration, BLOCKS, CPU, torch.float32)
    return Driver(model, cache, blocks=BLOCKS)


def together(
    directory: Path, leader: Leader, runner: str = "host", speculation: Speculation | None = None
) -> Driver:
    sharding = leader.sharding
    model = load_model(str(directory), device=CPU, dtype=torch.float32, sharding=sharding)
    leader.make_cache(BLOCKS)
    cache = KVCache(part_of(model.configuration, sharding), BLOCKS, CPU, torch.float32)
    led = leader.lead(model) if runner == "host" else model
    return Driver(led, cache, blocks=BLOCKS, runner=runner, speculation=speculation)
