"""``python -m tests.worker.parallel.follower RUNTIME_DIR SHARD SIZE``: follow whom it is told to.

One process for many models: each line of its input is the number of a replica and the directory of
its model. A model whose directory is named after a fault fails on purpose: see ``_fault``. One
whose name begins with ``ahead`` is followed as where devices are ahead of their hosts. Adapters are
in directories within the model's.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import zmq

from common.adapters import CONFIG, Adapter
from common.settings import Settings
from tests.worker.adapters import adapter_in
from worker.ahead.steps import Steps
from worker.parallel.group import Group
from worker.parallel.rendezvous import Berth
from worker.start import start_follower

FAILS = "fails-in-a-follower"
AHEAD = {"sequences": 2, "longest": 32, "sizes": (1, 2, 4)}
"""What ``Steps`` are made with: fewer and shorter ones than come, so that they have to grow."""
UNLUCKY = 13
"""The token that it does not like, in shard 1."""


HERE, FREE = "waits for its leader", "has been left"
"""What it prints."""


def main(runtime_dir: str, shard: int, size: int) -> None:
    torch.set_num_threads(1)
    context = zmq.Context()
    for line in sys.stdin:
        replica, model_dir = line.removesuffix("\n").split(" ", 1)
        print(HERE, flush=True)
        berth = Berth(context, runtime_dir, int(replica), shard, os._exit)
        follow(berth, Group(shard, size, torch.device("cpu")), model_dir, shard, size)
        berth.close()
        print(FREE, flush=True)


def follow(berth: Berth, group: Group, model_dir: str, shard: int, size: int) -> None:
    group.form(berth.await_leader().store)
    settings = Settings(
        model_id="m",
        model_dir=model_dir,
        dtype="float32",
        device="cpu",
        num_shard=size,
        disable_custom_kernels=True,
        adapters=adapters_of(model_dir),
    )
    follower = start_follower(settings, group)
    if Path(model_dir).name.startswith("ahead"):
        follower._make_steps = partial(Steps, **AHEAD)
    if Path(model_dir).name == FAILS and shard == 1:
        _fault(follower._model)
    follower.follow(berth)


def adapters_of(model_dir: str) -> list[Adapter]:
    """Those within a model's directory, in the order of their names."""
    return [adapter_in(path.parent) for path in sorted(Path(model_dir).glob(f"*/{CONFIG}"))]


def _fault(model: Any) -> None:
    """In the middle of the forward pass, after some collectives."""
    feed_forward = model.model.layers[1].mlp
    embed = model.model.embed_tokens
    unlucky = [False]

    class Embed:
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            unlucky[0] = UNLUCKY in ids.tolist()
            return embed(ids)

    class FeedForward:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            if unlucky[0]:
                raise MemoryError("on purpose")
            return feed_forward(x)

    model.model.embed_tokens = Embed()
    model.model.layers[1].mlp = FeedForward()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
