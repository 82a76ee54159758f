"""On two GPUs: sums through memory that both read, and graphs with shards.

A machine with one GPU skips them: nothing else can show what passes between two.
"""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from tests.gpu.engines import PROMPTS, ahead, generated, make_engine, tiny_model
from tests.gpu.shard import TOKENS
from tests.processes import started

ROOT = Path(__file__).parents[2]
LIMIT_S = 100
"""Less than pytest gives a test: who hangs is ended here, with all shards."""
SIZE = 2

pytestmark = pytest.mark.skipif(
    torch.cuda.device_count() < SIZE, reason="two GPUs are needed, and this machine has fewer"
)


def found(what: str, model_dir: Path) -> dict:
    """What the first shard has printed."""
    with tempfile.TemporaryDirectory() as runtime_dir, ExitStack() as lives:
        shards = [
            lives.enter_context(
                started(
                    [sys.executable, "-m", "tests.gpu.shard", what, runtime_dir, str(shard),
                     str(SIZE), str(model_dir)],
                    cwd=ROOT, stdout=subprocess.PIPE, text=True,
                )
            )
            for shard in range(SIZE)
        ]  # fmt: skip
        text, _ = shards[0].communicate(timeout=LIMIT_S)
        assert [shard.wait(LIMIT_S) for shard in shards] == [0] * SIZE
    return json.loads(text.splitlines()[-1])


def test_sums_of_both_ways(tmp_path):
    sums = found("sums", tmp_path)
    for name, distance in sums["distances"].items():
        assert distance < (1e-2 if "bfloat16" in name else 1e-6), name
    linked = torch.cuda.can_device_access_peer(0, 1)
    assert sums["short"] == linked, "GPUs that reach each other add up without NCCL"


def test_graphs_with_shards_say_what_one_gpu_says(tmp_path):
    model = tiny_model(tmp_path)
    wanted = generated(make_engine(model, ahead((1, 2, 4, 8))), PROMPTS, TOKENS)
    shards = found("text", tmp_path)
    assert shards["recorded"] == [1, 2, 4, 8]
    assert shards["ids"] == list(wanted.values())
