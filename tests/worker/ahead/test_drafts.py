"""Drafts where steps are launched before the last tokens are known: who is waited for.

That texts are the same is asked of all runners in ``tests/worker/speculation``.
"""

import pytest

from common.sampling import SamplingParameters
from tests.worker.ahead.adapted import NAMES, AdaptedModel
from tests.worker.driver import GREEDY, Driver, HistoryModel, fake_driver
from tests.worker.speculation.oracle import Oracle
from worker.speculation.speculation import Speculation
from worker.transfers import HostTransfers

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
COUNT = 60


def driver_with(oracle: Oracle, runner: str = "recorded", **options) -> Driver:
    return fake_driver(speculation=Speculation(4, oracle), runner=runner, **options)


def text(prompt: list[int] = PROMPT) -> list[int]:
    return prompt + HistoryModel().continuation(prompt, COUNT)


def under_way(driver: Driver) -> list[int]:
    """How many steps were, after each, until nobody can advance."""
    found = []
    while driver.step() is not None:
        found.append(len(driver.engine._flights))
    return found


@pytest.mark.parametrize("runner", ["ahead", "recorded"])
def test_who_has_no_guess_is_never_waited_for(runner):
    driver = driver_with(Oracle([]), runner)
    driver.add(0, PROMPT, COUNT)
    assert under_way(driver) == [1] * (COUNT - 1) + [0]
    assert driver.drafted == 0
    assert driver.records[0].ids == text()[len(PROMPT) :]


@pytest.mark.parametrize("runner", ["ahead", "recorded"])
def test_whose_guesses_are_right_is_waited_for_after_each_step(runner):
    driver = driver_with(Oracle([text()]), runner)
    driver.add(0, PROMPT, 41)
    assert under_way(driver) == [0] * 9
    assert driver.records[0].ids == text()[len(PROMPT) :][:41]
    assert driver.drafted == 32


def test_whose_guesses_are_wrong_is_waited_for_no_more():
    driver = driver_with(Oracle([text()], lies=1.0))
    driver.add(0, PROMPT, COUNT)
    found = under_way(driver)
    assert found[0] == 0
    assert found[12:] == [1] * (len(found) - 13) + [0]
    assert driver.records[0].ids == text()[len(PROMPT) :]


def test_a_text_that_begins_to_repeat_itself_is_noticed_without_a_wait():
    """Its guesses were wrong for long. From one place on they are right."""
    oracle = Oracle([text()], lies=1.0)
    driver = driver_with(oracle)
    driver.add(0, PROMPT, COUNT)
    for _ in range(30):
        driver.step()
    drafted = driver.drafted
    oracle.lies = 0.0
    under_way(driver)
    assert driver.drafted > drafted + 10
    assert driver.records[0].ids == text()[len(PROMPT) :]


def test_one_who_is_worth_the_wait_among_others():
    others = [[number, *PROMPT] for number in range(2)]
    driver = driver_with(Oracle([text()]))
    prompts = [PROMPT, *others]
    driver.dispatch(add=[driver.new(number, ids, 30) for number, ids in enumerate(prompts)])
    driver.run()
    assert driver.drafted > 15
    for number, ids in enumerate(prompts):
        assert driver.records[number].ids == text(ids)[len(ids) :][:30]
    assert max(len(step) for step in driver.model.steps) == 8  # a row of each, four drafts, padding


def test_beside_prompts_nobody_has_drafts():
    """Those steps are assembled on the host, which goes on without the last tokens."""
    driver = driver_with(Oracle([text()]), step_tokens=12)
    driver.add(0, PROMPT, 40)
    driver.step()
    driver.step()
    drafted = driver.drafted
    assert drafted
    long = [7] * 50
    driver.add(1, long, 3)
    while driver.records[1].started is None:
        driver.step()
        assert driver.drafted == drafted
    driver.run()
    assert driver.drafted > drafted
    assert driver.records[0].ids == text()[len(PROMPT) :][:40]
    assert driver.records[1].ids == text(long)[len(long) :][:3]


def test_who_has_no_room_for_drafts_is_not_waited_for():
    prompt = [*PROMPT, *PROMPT][:15]
    driver = driver_with(Oracle([text(prompt)]))
    driver.add(0, prompt, 20, room=16)
    assert under_way(driver) == [1, 0]
    driver.grant(0, 20)
    assert under_way(driver) == [0] * 4
    assert driver.records[0].ids == text(prompt)[len(prompt) :][:20]


@pytest.mark.usefixtures("settled")
def test_a_step_with_drafts_that_fails_is_repeated_without_them(caplog):
    driver = driver_with(Oracle([text()], lies=1.0))
    driver.model.fail_on = set(range(50)) - set(text())
    driver.add(0, PROMPT, COUNT)
    driver.run()
    assert "a step of 1 sequences failed" in caplog.text
    assert driver.records[0].ids == text()[len(PROMPT) :]


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SamplingParameters(do_sample=True, temperature=0.8, seed=7, top_n_tokens=2),
        SamplingParameters(repetition_penalty=1.2, output_frequency_penalty=0.2),
        SamplingParameters(watermark=True),
    ],
)
def test_the_device_is_waited_for_once_a_step(sampling, monkeypatch):
    alone = driver_with(Oracle([]))
    alone.add(0, PROMPT, 31, sampling=sampling)
    alone.run()
    expected = alone.records[0]
    driver = driver_with(Oracle([PROMPT + expected.ids]))
    driver.add(0, PROMPT, 31, sampling=sampling)
    driver.step()  # the prompt
    found = []
    download = HostTransfers.download
    monkeypatch.setattr(
        HostTransfers, "download", lambda own, tensor: found.append(1) or download(own, tensor)
    )
    for step in range(1, 7):  # of four drafts and one token more
        driver.step()
        assert len(found) == step
    assert driver.records[0].ids == expected.ids
    assert driver.records[0].tops == expected.tops
    assert driver.drafted == 24


def test_drafts_have_the_adapters_of_their_sequences():
    model = AdaptedModel()
    wanted = {
        number: (PROMPT[number:], 20, adapter) for number, adapter in enumerate(["a", "", "c"])
    }
    texts = [ids + model.continuation(ids, count, name) for ids, count, name in wanted.values()]
    driver = Driver(
        model, HistoryModel.cache(64), runner="recorded", adapters=NAMES,
        speculation=Speculation(3, Oracle(texts)),
    )  # fmt: skip
    driver.dispatch(
        add=[driver.new(n, ids, count, adapter=name) for n, (ids, count, name) in wanted.items()]
    )
    driver.run()
    assert not model.wrong
    assert driver.drafted > 20
    for number, (ids, _, _) in enumerate(wanted.values()):
        assert ids + driver.records[number].ids == texts[number]
