import pytest

from bench import load
from tests.launcher.bench.standin import Standin, serving


def run(state, api, **target):
    with serving(state) as url:
        return load.run(load.Target(url, api, **target), load.Work(["a b", "c", "d"], 2, [4, 5, 6]))


@pytest.mark.parametrize("api", load.APIS)
def test_every_prompt_is_sent_once_and_its_tokens_are_counted(api):
    state = Standin()
    found = run(state, api, model="m")
    assert (found["ok"], found["fail"], found["tokens"], found["failures"]) == (3, 0, 15, [])
    assert found["ttft_ms_p50"] > 0
    assert found["tok_s"] > 0
    key = "prompt" if api == "openai" else "inputs"
    assert sorted(body[key] for _, body, _ in state.asked) == ["a b", "c", "d"]


def test_ends_are_ignored_only_by_servers_that_know_how():
    for ignores_eos in (True, False):
        state = Standin()
        run(state, "openai", ignores_eos=ignores_eos)
        assert all(body.get("ignore_eos", False) == ignores_eos for _, body, _ in state.asked)


def test_failures_are_counted_with_their_reason():
    found = run(Standin(status=429), "openai")
    assert (found["ok"], found["fail"], found["tok_s"]) == (0, 3, 0.0)
    assert found["failures"] == ["429: no room"]


def test_figures_of_a_library_are_worked_out_as_those_of_a_server():
    found = load.summary(2.0, 640, [0.25, 0.75], [0.01, 0.03])
    assert (found["tok_s"], found["ttft_ms_p50"]) == (320.0, 500.0)
    assert (found["itl_ms_p50"], found["itl_ms_mean"]) == (20.0, 20.0)


def test_the_same_seed_gives_the_same_prompts_with_a_common_beginning():
    prompts = load.random_prompts(3, 4, seed=1, shared_words=6)
    assert prompts == load.random_prompts(3, 4, seed=1, shared_words=6)
    assert prompts != load.random_prompts(3, 4, seed=2, shared_words=6)
    assert {len(prompt.split()) for prompt in prompts} == {10}
    assert len({" ".join(prompt.split()[:6]) for prompt in prompts}) == 1
    assert len(set(prompts)) == 3
