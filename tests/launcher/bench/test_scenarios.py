"""What is asked: lengths, common beginnings, conversations, and the same for the same seed."""

import pytest

from launcher.bench.scenarios import SCENARIOS, Length, Ruler, draw

RULER = Ruler(words_per_token=0.5)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_keeps_its_lengths(name: str) -> None:
    scenario = SCENARIOS[name]
    works = draw(scenario, 20, 1, RULER)
    assert works == draw(scenario, 20, 1, RULER)
    assert works != draw(scenario, 20, 2, RULER)
    for work in works:
        assert scenario.output.least <= work.max_tokens <= scenario.output.most
        tokens = 2 * len(work.turns[-1].split())
        longest = scenario.prompt.most + (scenario.shared.most if scenario.shared else 0)
        assert scenario.prompt.least - 1 <= tokens <= longest + 2


def test_conversations_grow() -> None:
    works = draw(SCENARIOS["chat"], 64, 1, RULER)
    assert [len(work.turns) for work in works] == [1] * 32 + [3] * 32
    assert works[32].turns[0] == works[0].turns[0]


def test_beginnings_are_shared() -> None:
    works = draw(SCENARIOS["classification"], 40, 1, RULER)
    assert 2 <= len({work.text[:2000] for work in works}) <= 8
    works = draw(SCENARIOS["shared-prefix"], 10, 1, RULER)
    assert len({work.text[:2000] for work in works}) == 1
    assert len({work.text for work in works}) == 10


def test_lengths_of_the_users_own() -> None:
    scenario = SCENARIOS["code"].adapted(100, 7, 50)
    work = draw(scenario, 1, 0, Ruler(1.0, 10.0))[0]
    assert len(work.text.split()) == 100 + 50 - 10, "the overhead counts once"
    assert work.max_tokens == 7
    assert scenario.shared == Length.exactly(50)
