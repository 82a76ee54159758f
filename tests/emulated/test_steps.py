"""Engines on the emulated device: what a CPU says one step at a time, ahead and from graphs.

The whole path of the worker: transfers, the state on the device, recorded steps, sampling.
"""

from functools import partial

import pytest
import torch

from common.sampling import SamplingParameters
from tests.gpu.engines import (
    PROMPTS,
    ahead,
    forbid_waiting,
    generated,
    make_engine,
    take_few_rows,
    tiny_model,
)
from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.speculation.oracle import Oracle
from tests.worker.texts import SAMPLED
from tests.worker.tiny import write_tiny
from worker.kernels.select import Choices
from worker.loading import load_model
from worker.runner import HostRunner
from worker.speculation.speculation import Speculation

GRAPHS = ahead((1, 2, 4))
FEW = partial(generated, prompts=PROMPTS[:3], count=5)
TOPS = SamplingParameters(top_n_tokens=3)
READ = list(range(40, 75))
NEAR = 0.05
"""Relative: twice what 16 bits cost these models on a CPU."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same one on both."""
    make = tmp_path_factory.mktemp
    return tiny_model(make("cpu"), "cpu"), tiny_model(make("cuda"))


@pytest.mark.parametrize("sampling", [SamplingParameters(), TOPS, *SAMPLED])
def test_tokens_are_those_of_the_cpu(models, sampling):
    on_cpu, there = models
    expected = FEW(make_engine(on_cpu, HostRunner), sampling=sampling)
    for make_runner in (ahead(), GRAPHS):
        assert FEW(make_engine(there, make_runner), sampling=sampling) == expected


@pytest.mark.parametrize("sampling", [SamplingParameters(), SAMPLED[0]])
def test_drafts_change_no_token(models, sampling):
    """Nor do they where they are rows of what was recorded without them."""
    on_cpu, there = models
    few = partial(generated, prompts=PROMPTS[:2], count=12, sampling=sampling)
    expected = few(make_engine(on_cpu, HostRunner))
    for make_runner in (ahead(), GRAPHS):
        oracle = Oracle([[*PROMPTS[row], *ids] for row, ids in expected.items()], lies=0.2)
        engine = make_engine(there, make_runner, speculation=Speculation(2, oracle))
        assert few(engine) == expected
        assert max(oracle.asked) > 1


@pytest.mark.parametrize("make_runner", [ahead(), GRAPHS])
def test_launching_never_waits(models, make_runner, monkeypatch):
    engine = make_engine(models[1], make_runner)
    FEW(engine)
    forbid_waiting(engine, monkeypatch)
    assert all(len(ids) == 5 for ids in FEW(engine).values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_it_says_on_the_cpu(family, tmp_path):
    write_tiny(tmp_path, FAMILIES[family](), seed=2)
    load = partial(load_model, str(tmp_path), dtype=torch.float32)
    on_cpu, there = load(device=torch.device("cpu")), load(device=torch.device("cuda"))
    assert there.capturable
    assert FEW(make_engine(there, GRAPHS)) == FEW(make_engine(on_cpu, HostRunner))


@pytest.mark.parametrize("few_rows", [False, True])
@pytest.mark.parametrize("family", ["mistral", "gemma2", "qwen3", "mixtral"])
def test_16_bits_are_near(family, few_rows, tmp_path):
    """With linear layers of few rows in the kernel, or in none."""
    write_tiny(tmp_path, FAMILIES[family](), seed=2)
    found = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        model = load_model(str(tmp_path), device=torch.device(device), dtype=dtype)
        take_few_rows(model, few_rows)
        paged = Paged(model, device=torch.device(device))
        sequence = paged.start([*READ, 1])
        paged.step([(sequence, len(READ))])
        found.append(paged.step([(sequence, 1)], rows="all").cpu())
    wanted, got = found
    assert (got - wanted).norm() / wanted.norm() < NEAR


def test_a_cache_of_8_bits_is_near(tmp_path):
    write_tiny(tmp_path, FAMILIES["mistral_without_window"](), seed=2)
    found = []
    for kv_dtype in (None, torch.float8_e4m3fn):
        choices = Choices(kv_dtype=kv_dtype)
        cuda = torch.device("cuda")
        model = load_model(str(tmp_path), device=cuda, dtype=torch.bfloat16, choices=choices)
        paged = Paged(model, device=cuda)
        found.append(paged.step([(paged.start(READ), len(READ))], rows="all"))
    assert (found[1] - found[0]).norm() / found[0].norm() < 0.2
