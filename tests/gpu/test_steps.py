"""On a GPU: a step ahead of the host, with and without graphs, gives what one at a time gives.

For ``make gpu-test``; ``tests/emulated/test_steps.py`` asks the same of a device that is emulated.
"""

import pytest
import torch

from common.sampling import SamplingParameters
from tests.gpu.engines import PROMPTS, ahead, forbid_waiting, generated, make_engine, tiny_model
from tests.worker.adapters import write_adapter
from tests.worker.speculation.oracle import Oracle
from tests.worker.texts import SAMPLED
from tests.worker.tiny import write_tiny_llama
from worker.loading import load_model
from worker.runner import HostRunner
from worker.speculation.speculation import Speculation

AHEAD, GRAPHS = ahead(), ahead((1, 2, 4, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("sampling", [SamplingParameters(), *SAMPLED])
def test_tokens_are_those_of_one_step_at_a_time(model, sampling):
    expected = generated(make_engine(model, HostRunner), PROMPTS, 40, sampling)
    assert generated(make_engine(model, AHEAD), PROMPTS, 40, sampling) == expected
    assert generated(make_engine(model, GRAPHS), PROMPTS, 40, sampling) == expected


def test_tokens_are_those_of_the_cpu(model, tmp_path):
    expected = generated(make_engine(tiny_model(tmp_path, "cpu"), HostRunner), PROMPTS, 40)
    assert generated(make_engine(model, GRAPHS), PROMPTS, 40) == expected


@pytest.mark.parametrize("sampling", [SamplingParameters(), *SAMPLED])
def test_drafts_change_no_token(model, sampling):
    expected = generated(make_engine(model, HostRunner), PROMPTS, 40, sampling)
    for make_runner in (AHEAD, GRAPHS):
        oracle = Oracle([[*PROMPTS[row], *ids] for row, ids in expected.items()], lies=0.2)
        engine = make_engine(model, make_runner, speculation=Speculation(3, oracle))
        assert generated(engine, PROMPTS, 40, sampling) == expected
        assert max(oracle.asked) > 1


def test_adapters_say_from_graphs_what_they_say_one_step_at_a_time(tmp_path):
    write_tiny_llama(tmp_path / "base", seed=3)
    adapters = [
        write_adapter(tmp_path / f"rank-{rank}", tmp_path / "base", rank=rank, seed=rank)
        for rank in (4, 40)
    ]
    model = load_model(
        str(tmp_path / "base"), device=torch.device("cuda"), dtype=torch.float32, adapters=adapters
    )
    names = tuple(adapter.digest for adapter in adapters)
    found = [
        generated(make_engine(model, make_runner, adapters=names), PROMPTS, 8, None, (*names, ""))
        for make_runner in (HostRunner, AHEAD, GRAPHS)
    ]
    assert found[1:] == [found[0]] * 2
    assert found[0] != generated(make_engine(model, GRAPHS, adapters=names), PROMPTS, 8)


@pytest.mark.parametrize("make_runner", [AHEAD, GRAPHS])
@pytest.mark.parametrize(
    "sampling", [SamplingParameters(), SamplingParameters(do_sample=True, top_p=0.9, top_k=20)]
)
def test_launching_never_waits(model, make_runner, sampling, monkeypatch):
    engine = make_engine(model, make_runner)
    generated(engine, PROMPTS, 8, sampling)  # kernels are compiled, tables are as long as needed
    forbid_waiting(engine, monkeypatch)
    assert all(len(ids) == 40 for ids in generated(engine, PROMPTS, 40, sampling).values())
