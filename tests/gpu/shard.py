"""``python -m tests.gpu.shard sums|text RUNTIME_DIR SHARD SIZE MODEL_DIR``: one shard on its GPU.

The first shard prints what it found as one JSON object.
"""

import json
import os
import sys

import torch
import zmq

from common.settings import Settings
from tests.gpu.engines import PROMPTS, generated
from worker.parallel.group import Group
from worker.parallel.leader import Leader
from worker.parallel.rendezvous import Berth, Crew
from worker.start import start, start_follower

TOKENS = 40
SIZES = (8, 64, 4096, 100_000, 1_000_000)
"""Numbers of a tensor: around the largest that goes the short way."""


def main(what: str, runtime_dir: str, shard: int, size: int, model_dir: str) -> None:
    torch.cuda.set_device(shard)
    device, context = torch.device("cuda"), zmq.Context()
    group = Group(shard, size, device)
    settings = Settings(
        model_id="m", model_dir=model_dir, runtime_dir=runtime_dir, dtype="float32", device="cuda",
        num_shard=size, max_batch_size=16, max_batch_total_tokens=6000, max_total_tokens=256,
        max_input_tokens=200, max_batch_prefill_tokens=256, cuda_graphs=[1, 2, 4, 8],
    )  # fmt: skip
    if shard:
        berth = Berth(context, runtime_dir, 0, shard, os._exit)
        group.form(berth.await_leader().store)
        if what == "sums":
            sums(group, shard)
            berth.receive()  # whoever leaves before the leader takes it along
        else:
            start_follower(settings, group).follow(berth)
        berth.close()
        return
    leader = Leader(Crew(context, runtime_dir, 0, size, os._exit), group)
    if what == "sums":
        say(sums(group, shard))
    else:
        engine = start(settings, leader)
        ids = generated(engine, PROMPTS, TOKENS)
        recorded = sorted(size for size, _ in engine._runner._steps._decode._recorded)
        say({"recorded": recorded, "ids": list(ids.values())})
    leader.close()
    context.term()


def say(found: dict[str, object]) -> None:
    """On standard output."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def sums(group: Group, shard: int) -> dict[str, object]:
    """Of both ways, alone and in a graph that is replayed; the largest relative distances."""
    distances = {}
    for dtype in (torch.bfloat16, torch.float32):
        for count in SIZES:
            generator = torch.Generator("cuda").manual_seed(100 * shard + count)
            part = torch.randn(count, generator=generator, device="cuda").to(dtype)
            distances[f"{dtype} {count}"] = max(
                distance(group, group.add_up(part.clone()), part), in_a_graph(group, part)
            )
    return {"short": group._small is not None, "distances": distances}


def distance(group: Group, got: torch.Tensor, part: torch.Tensor) -> float:
    """From the sum of the parts in float64."""
    wanted = part.double()
    group._process_group.allreduce([wanted], group._sum).wait()
    return ((got.double() - wanted).norm() / wanted.norm()).item()


def in_a_graph(group: Group, part: torch.Tensor) -> float:
    """Replayed for other numbers than it was recorded with."""
    place = part.clone()
    group.add_up(place.clone())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        total = group.add_up(place * 1.0)
    found = 0.0
    for factor in (1.0, -3.0, 0.5):
        place.copy_(part * factor)
        graph.replay()
        found = max(found, distance(group, total, place))
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
