"""On a GPU: a step ahead of the host, with and without graphs, gives what one at a time gives.

For ``make gpu-test``; ``tests/emulated/test_steps.py`` asks the same of a device that is emulated.
"""

import pytest

from common.sampling import SamplingParameters
from tests.gpu.engines import PROMPTS, ahead, forbid_waiting, generated, make_engine, tiny_model
from tests.worker.texts import SAMPLED
from worker.runner import HostRunner

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


@pytest.mark.parametrize("make_runner", [AHEAD, GRAPHS])
@pytest.mark.parametrize(
    "sampling", [SamplingParameters(), SamplingParameters(do_sample=True, top_p=0.9, top_k=20)]
)
def test_launching_never_waits(model, make_runner, sampling, monkeypatch):
    engine = make_engine(model, make_runner)
    generated(engine, PROMPTS, 8, sampling)  # kernels are compiled, tables are as long as needed
    forbid_waiting(engine, monkeypatch)
    assert all(len(ids) == 40 for ids in generated(engine, PROMPTS, 40, sampling).values())
