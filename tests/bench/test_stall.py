import pytest

from bench.load import Target
from bench.peers.contenders import ContenderError
from bench.stall import Beside, measure
from tests.launcher.bench.standin import Standin, serving

WORK = Beside(streams=3, tokens=4, prompts=2, words=10)


def test_streams_run_before_the_long_prompts_are_sent():
    state = Standin()
    with serving(state) as url:
        found = measure(Target(url), WORK)
    tokens = [body["max_tokens"] for _, body, _ in state.asked]
    assert tokens == [1, 4, 4, 4, 1, 1]
    assert [len(body["prompt"].split()) for _, body, _ in state.asked[4:]] == [11, 11]
    assert 0 <= found["gap_ms_p50"] <= found["gap_ms_worst"]


def test_a_request_that_fails_is_no_figure():
    with (
        serving(Standin(status=429)) as url,
        pytest.raises(ContenderError, match=r"requests failed \(1\): 429: no room"),
    ):
        measure(Target(url), WORK)
