from bench.engine import InstantScheduler, Record
from bench.speculation import Repeating, Side, row
from tests.worker.driver import CPU, HistoryModel
from worker.engine import Engine
from worker.speculation.speculation import Speculation


def side(speculation: Speculation | None = None) -> Side:
    ticks = iter(range(10**9))
    engine = Engine(
        HistoryModel(2000),
        HistoryModel.cache(30),
        blocks=30,
        device=CPU,
        clock=lambda: float(next(ticks)),
        speculation=speculation,
    )
    return Side(InstantScheduler(engine))


def test_drafts_are_right_by_the_share_that_is_asked_for():
    repeating = Repeating()
    plain, drafting = side(), side(Speculation(4, repeating))
    repeating.texts = plain.run(2)[1].texts
    found = {}
    for right in (1.0, 0.5, 0.0):
        repeating.right = right
        record = drafting.run(2)[1]
        assert sorted(record.texts) == sorted(repeating.texts)
        found[right] = record.accepted / record.drafted
    assert found[1.0] == 1.0
    assert 0.2 < found[0.5] < 0.7
    assert found[0.0] == 0.0


def test_a_line_of_the_table():
    without = Record(tokens=100)
    drafted = Record(tokens=100, decode_s=[0.1] * 10, drafted=40, accepted=20)
    found = [((100.0, without), (150.0, drafted))] * 3
    assert row("half right", 8, found) == "| half right | 8 | 100 | 150 | 1.50 | 50% of 40 | 12.0 |"
    none = row("none", 1, [((100.0, without), (100.0, without))])
    assert none == "| none | 1 | 100 | 100 | 1.00 | none made | 1.0 |"
