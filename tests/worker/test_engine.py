"""One sequence's life in the engine: ends, continuation, failures. With the history model."""

import math

import pytest
import torch

from common.messages import Grant
from common.sampling import SamplingParameters
from tests.worker.driver import fake_driver
from worker.errors import GroupLostError

pytestmark = pytest.mark.usefixtures("runner")

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def test_the_count_is_looked_at_before_the_stop_ids():
    driver = fake_driver()
    ids = driver.model.continuation(PROMPT, 4)
    driver.add(0, PROMPT, 10, stop_token_ids=[ids[3]])
    driver.add(1, PROMPT, ids.index(ids[3]) + 1, stop_token_ids=[ids[3]])
    driver.run()
    assert (driver.records[0].ids, driver.records[0].finish) == (
        ids[: ids.index(ids[3]) + 1],
        "eos_token",
    )
    assert driver.records[1].finish == "length"
    assert driver.engine.held == 0


def test_started_goes_with_the_first_token_and_once():
    driver = fake_driver()
    driver.add(0, PROMPT, 3)
    items = driver.step()
    assert items[0].tokens.started.queue_s == 0.25
    assert driver.step()[0].tokens.started is None


def test_a_continued_sequence_goes_on_where_it_stopped():
    driver = fake_driver(step_tokens=5)
    whole = driver.model.continuation(PROMPT, 12)
    driver.add(0, PROMPT, 12)
    while len(driver.records[0].ids) < 5:
        driver.step()
    driver.release(0)
    driver.add(0, PROMPT, 12, generated=list(driver.records[0].ids), attempt=1)
    first = driver.step() or driver.step()  # what was under way yields nothing
    assert first[0].tokens.attempt == 1
    assert driver.released == [0]
    driver.run()
    assert driver.records[0].ids == whole
    assert driver.records[0].finish == "length"


def test_blocks_that_another_has_computed_are_read():
    driver = fake_driver()
    shared = [(7 * n) % 50 for n in range(40)]
    driver.add(0, shared, 3)
    driver.run()
    blocks = driver.leases[0][:2] + driver.lease(32)
    driver.add(1, [*shared[:32], 8, 9], 5, blocks=blocks, cached=32)
    driver.run()
    assert driver.model.steps[-5:] == [(2,), (1,), (1,), (1,), (1,)]
    assert driver.records[1].ids == driver.model.continuation([*shared[:32], 8, 9], 5)
    assert driver.records[1].started.cached_tokens == 32


def test_what_was_generated_to_its_end_before_ends_again():
    driver = fake_driver()
    driver.records.clear()
    new = driver.new(0, PROMPT, 2, generated=[4, 5])
    driver.records[0].ids = [4, 5]
    driver.dispatch(add=[new])
    assert driver.step() is None
    assert driver.records[0].finish == "length"
    assert driver.engine.held == 0


def test_one_that_comes_again_takes_its_own_place():
    driver = fake_driver()
    penalised = SamplingParameters(repetition_penalty=1.2)
    driver.add(0, PROMPT, 9, sampling=penalised)
    driver.step()
    generated = driver.records[0].ids[:]
    driver.add(0, PROMPT, 9, sampling=penalised, generated=generated)
    driver.run()
    assert driver.records[0].finish == "length"
    assert driver.engine.held == 0


def test_release_is_confirmed_also_of_the_unknown():
    driver = fake_driver()
    driver.add(0, PROMPT, 5)
    driver.step()
    driver.dispatch(release=[0, 77])
    driver.run()
    assert driver.released == [0, 77]
    assert driver.engine.held == 0


def test_release_comes_before_add_and_grants_after():
    driver = fake_driver()
    driver.add(0, PROMPT, 5)
    driver.step()
    again = driver.new(0, PROMPT, 30, generated=driver.records[0].ids[:], room=16)
    driver.dispatch(release=[0], add=[again], grants=[Grant(0, driver.lease(32))])
    driver.run()
    assert driver.records[0].ids == driver.model.continuation(PROMPT, 30)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": []},
        {"prompt": [1, 50]},
        {"prompt": [-1]},
        {"prompt": [2**63]},
        {"generated": [99]},
        {"blocks": [0]},
        {"blocks": [64]},
        {"blocks": [-3]},
        {"blocks": [5, 5]},
        {"cached": 8, "prompt": [1] * 20},
        {"cached": 16, "prompt": [1] * 16},
        {"cached": -16},
        {"cached": 16, "prompt": [1] * 20, "blocks": []},
        {"cached": 16, "prompt": [1] * 20, "prefill_logprobs": True},
        {"sampling": SamplingParameters(logit_bias={50: 1.0})},
    ],
)
def test_what_cannot_be_run_fails_alone(wrong):
    driver = fake_driver()
    options = dict(wrong)
    bad = driver.new(1, options.pop("prompt", PROMPT), 4, **options)
    driver.dispatch(add=[driver.new(0, PROMPT, 4), bad, driver.new(2, PROMPT[1:], 4)])
    driver.run()
    assert driver.records[1].error
    assert "the forward pass" not in driver.records[1].error  # it was not tried
    for number, ids in ((0, PROMPT), (2, PROMPT[1:])):
        assert driver.records[number].ids == driver.model.continuation(ids, 4)
    assert driver.engine.held == 0


def test_an_id_that_no_front_end_has_fails_alone():
    driver = fake_driver()
    driver.add(-1, PROMPT, 4)
    driver.run()
    assert driver.records[-1].error


def test_a_bad_grant_fails_its_sequence():
    driver = fake_driver()
    driver.add(0, PROMPT, 20, room=16)
    driver.add(1, PROMPT, 5)
    driver.dispatch(grants=[Grant(0, [64]), Grant(5, [3])])
    driver.run()
    assert "block" in driver.records[0].error
    assert driver.records[1].finish == "length"


def test_a_failing_step_is_repeated_one_by_one(caplog):
    driver = fake_driver()
    driver.model.fail_on = {49}
    driver.dispatch(add=[driver.new(n, [*PROMPT, n], 4) for n in (1, 49, 2)])
    driver.run()
    assert driver.records[49].error == "the forward pass failed (RuntimeError)"
    for number in (1, 2):
        expected = driver.model.continuation([*PROMPT, number], 4)
        if 49 not in expected[:3]:
            assert driver.records[number].ids == expected
    assert "no such luck" in caplog.text
    assert driver.engine.held == 0


def test_a_step_that_needs_too_much_memory_is_repeated_one_by_one():
    driver = fake_driver()
    forward = driver.model.forward

    def small_only(inputs, cache):
        if len(inputs.token_ids) > 8:
            raise torch.OutOfMemoryError("too much")
        return forward(inputs, cache)

    driver.model.forward = small_only
    driver.dispatch(add=[driver.new(n, [*PROMPT[:7], n], 2) for n in range(3)])
    driver.add(3, [*PROMPT, 9], 2)
    driver.run()
    assert driver.records[3].error == "no memory was left for a step of this request"
    for number in range(3):
        expected = driver.model.continuation([*PROMPT[:7], number], 2)
        assert driver.records[number].ids == expected


@pytest.mark.parametrize("error", [torch.AcceleratorError, GroupLostError])
def test_a_lost_device_or_shard_ends_the_process(error):
    driver = fake_driver()

    def lost(inputs, cache):
        raise error("no more")

    driver.model.forward = lost
    driver.add(0, PROMPT, 2)
    with pytest.raises(error):
        driver.step()


def test_steps_are_timed():
    driver = fake_driver()
    assert driver.engine.longest_step_s == 0.0
    driver.add(0, PROMPT, 2)
    driver.run()
    assert driver.engine.longest_step_s > 0.0


@pytest.mark.parametrize("sampling", [SamplingParameters(), SamplingParameters(do_sample=True)])
def test_logits_that_are_no_numbers_fail_their_sequence_alone(sampling):
    driver = fake_driver()
    driver.model.nan_on = {48}
    driver.dispatch(
        add=[
            driver.new(n, [*PROMPT, n], 1, sampling=sampling, prefill_logprobs=n == 3)
            for n in (1, 48, 2, 3)
        ]
    )
    driver.run()
    assert driver.records[48].error == "the model's output was not a number"
    assert all(driver.records[n].finish == "length" for n in (1, 2, 3))
    assert driver.engine.held == 0


def test_prompt_logprobs_that_are_no_numbers_fail_it_too():
    driver = fake_driver()
    driver.model.nan_on = {4}
    driver.add(0, PROMPT, 1, prefill_logprobs=True)
    driver.run()
    assert driver.records[0].error


@pytest.mark.parametrize(
    ("length", "budget"),
    [(1, 1), (2, 1), (2, 8), (17, 1), (17, 3), (17, 300), (600, 64), (600, 300), (600, 1000)],
)
def test_prompt_logprobs_across_chunks_and_pieces(budget, length):
    driver = fake_driver(step_tokens=budget)
    ids = [(n * n + 3) % 50 for n in range(length)]
    driver.dispatch(add=[driver.new(0, PROMPT, 4), driver.new(1, ids, 2, prefill_logprobs=True)])
    driver.run()
    states = [driver.model.state(ids[: end + 1]) for end in range(length)]
    table = torch.log_softmax(driver.model.logits(torch.tensor(states, dtype=torch.float64)), -1)
    expected = [table[place - 1, ids[place]].item() for place in range(1, length)]
    assert driver.records[1].started.prefill_logprobs == pytest.approx(expected, abs=1e-5)
    assert driver.records[0].started.prefill_logprobs == []
    assert max(driver.model.logit_rows[:-1]) <= 256
    assert all(math.isfinite(x) for x in driver.records[1].logprobs)


def test_a_continued_sequence_does_not_report_its_prompt_again():
    driver = fake_driver()
    driver.add(0, PROMPT, 4, prefill_logprobs=True)
    driver.step()
    assert len(driver.records[0].started.prefill_logprobs) == 7
    driver.release(0)
    driver.add(0, PROMPT, 4, generated=driver.records[0].ids[:], prefill_logprobs=True)
    driver.run()
    assert driver.records[0].ids == driver.model.continuation(PROMPT, 4)


def test_tops_come_only_when_asked_for():
    driver = fake_driver()
    driver.add(0, PROMPT, 3, sampling=SamplingParameters(top_n_tokens=2))
    driver.add(1, PROMPT, 3)
    driver.run()
    record = driver.records[0]
    assert [top[0][0] for top in record.tops] == record.ids
    assert driver.records[1].tops == []


def test_reset_drops_everything():
    driver = fake_driver()
    penalised = SamplingParameters(repetition_penalty=1.2, output_presence_penalty=0.1)
    driver.dispatch(
        add=[driver.new(n, PROMPT, 5, sampling=penalised) for n in range(20)], release=[9]
    )
    driver.step()
    assert driver.engine.held in (20 * 4, 20 * 4 + 1)  # the next step may be under way
    driver.dispatch(release=[3], add=[driver.new(20, [], 1)])  # which cannot be run
    driver.engine.reset()
    assert driver.engine.held == 0
    assert driver.engine.take_news() == ([], [])
    assert driver.step() is None


class Minded:
    """What the engine says of the cache's memory."""

    def __init__(self):
        self.told = []

    def use(self, block):
        self.told.append(block)

    def rest(self):
        self.told.append("rest")


def test_the_memory_is_told_of_leased_blocks_and_of_rests():
    minded = Minded()
    driver = fake_driver(memory=minded)
    driver.add(0, PROMPT, 4, blocks=[7, 2], room=8)
    driver.add(1, PROMPT, 4, blocks=[5])
    assert minded.told == [7, 5]
    driver.dispatch(grants=[Grant(0, [3, 9])])
    assert minded.told.pop() == 9
    driver.run()
    assert minded.told == [7, 5, "rest"]
    driver.dispatch()
    assert minded.told[3:] == [0]
    assert driver.step() is None
    assert minded.told[4:] == ["rest"]
