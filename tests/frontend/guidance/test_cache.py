"""The memory of verdicts: bounded twice, and short for those that came of a limit."""

from frontend.guidance.cache import EXHAUSTED_S, Verdicts
from frontend.guidance.frames import Verdict
from frontend.guidance.source import GrammarSource


def source(text: str) -> GrammarSource:
    return GrammarSource("regex", text)


def test_the_least_recently_used_goes_first() -> None:
    verdicts = Verdicts(verdicts=2)
    for name in "ab":
        verdicts.put(source(name), Verdict(grammar=name), 0.0)
    assert verdicts.get(source("a"), 0.0) == Verdict(grammar="a")
    verdicts.put(source("c"), Verdict(error="c"), 0.0)
    assert verdicts.get(source("b"), 0.0) is None
    assert verdicts.get(source("a"), 1e9) == Verdict(grammar="a")
    assert verdicts.get(source("c"), 1e9) == Verdict(error="c")


def test_characters_are_bounded() -> None:
    verdicts = Verdicts(characters=100)
    for number in range(20):
        verdicts.put(source(f"{number:02}" * 10), Verdict(grammar="x" * 20), 0.0)
    assert len(verdicts) == 2
    verdicts.put(source("again"), Verdict(grammar="y"), 0.0)
    verdicts.put(source("again"), Verdict(grammar="z"), 0.0)
    assert verdicts.get(source("again"), 0.0) == Verdict(grammar="z")
    verdicts.put(source("huge"), Verdict(grammar="x" * 200), 0.0)
    assert len(verdicts) == 0


def test_kind_and_text_make_a_source() -> None:
    verdicts = Verdicts()
    verdicts.put(GrammarSource("regex", "a"), Verdict(grammar="r"), 0.0)
    assert verdicts.get(GrammarSource("lark", "a"), 0.0) is None


def test_exhaustion_is_forgotten_after_a_while() -> None:
    verdicts = Verdicts()
    verdicts.put(source("a"), Verdict(error="slow", exhausted=True), 10.0)
    assert verdicts.get(source("a"), 9.9 + EXHAUSTED_S) is not None
    assert verdicts.get(source("a"), 10.0 + EXHAUSTED_S) is None
    assert len(verdicts) == 0
