"""Which steps are recorded, and who computes a worker's steps."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from common.option import batch_sizes
from common.options import OPTIONS
from common.settings import Settings
from tests.worker.driver import CPU
from worker.ahead.ladder import sizes_for
from worker.ahead.runner import AheadRunner
from worker.parallel.team import Alone
from worker.runner import HostRunner
from worker.start import _runner, _steps


def settings(**changes) -> Settings:
    return Settings(model_id="m", model_dir="/m", max_batch_size=40, **changes)


@pytest.mark.parametrize(
    ("given", "together", "sizes"),
    [
        (None, 1, [1]),
        (None, 5, [1, 2, 4, 5]),
        (None, 20, [1, 2, 4, 8, 16, 20]),
        ([8, 2, 8], 20, [2, 8]),
        ([0], 20, []),
    ],
)
def test_sizes_are_as_set_or_grow_to_the_most(given, together, sizes):
    assert sizes_for(settings(cuda_graphs=given), together) == sizes


@pytest.mark.parametrize(("beyond", "share"), [(16, 1 / 3), (32, 1 / 5)])
def test_padding_is_a_small_part_of_a_step(beyond, share):
    sizes = sizes_for(settings(), 1000)
    assert sizes[-1] == 256
    for before, size in itertools.pairwise(sizes):
        assert before < beyond or (size - before - 1) / size < share


@pytest.mark.parametrize(
    ("text", "fine"), [("1,2,4", True), ("0", True), ("0,1", False), ("-1", False), ("5000", False)]
)
def test_the_option_takes_batch_sizes(text, fine):
    assert (batch_sizes(OPTIONS["cuda_graphs"].kind.parse(text)) == "") is fine


def test_the_option_takes_nothing_else():
    with pytest.raises(ValueError, match="whole numbers"):
        OPTIONS["cuda_graphs"].kind.parse("all")


@pytest.mark.parametrize(
    ("device", "ahead", "capturable", "recorded"),
    [("cpu", True, True, None), ("cuda", False, False, None), ("cuda", True, False, 0),
     ("cuda", True, True, 8)],
)  # fmt: skip
def test_a_gpu_is_ahead_where_the_model_can_be(device, ahead, capturable, recorded):
    model = SimpleNamespace(
        rolls_back=True,
        runs_ahead=ahead,
        capturable=capturable,
        configuration=SimpleNamespace(max_position_embeddings=512),
    )
    made = _runner(settings(), Alone(), torch.device(device), model)
    if recorded is None:
        assert made is HostRunner
    else:
        assert made.func is AheadRunner
        assert made.keywords["longest"] == 512
        assert len(made.keywords["sizes"]) == recorded


def test_shards_are_ahead_together():
    model = SimpleNamespace(
        rolls_back=True,
        runs_ahead=True,
        capturable=True,
        configuration=SimpleNamespace(max_position_embeddings=64),
    )
    team = SimpleNamespace(go_ahead=lambda: "the others")
    made = _runner(settings(num_shard=2), team, torch.device("cuda"), model)
    assert made.keywords["others"] == "the others"
    assert made.keywords.items() >= _steps(settings(), torch.device("cuda"), model).items()
    assert _runner(settings(num_shard=2), team, CPU, model) is HostRunner
