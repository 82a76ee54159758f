"""What dashboard, alerts and autoscalers ask for exists in a scrape, with these labels."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.messages import Delivered, StepTiming, Tally
from tests.deploy.queries import (
    ALERTS,
    ROOT,
    TGI_QUERIES,
    Query,
    dashboard,
    of_alerts,
    of_autoscaling,
    of_dashboard,
)
from tests.scheduler.harness import sequence_id, started


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """Series of a scheduler that has counted something of everything, with their labels."""
    house = started(waiting_served_ratio=0.0)
    house.submit(1)
    house.submit(2)
    house.from_frontend(Tally(4, {"overloaded": 1}, {"worker-0": 1}))
    house.from_frontend(Delivered(sequence_id(1), True, 10, 2.0, 0.1, 0.2, 1.7))
    house.report(house.token(sequence_id(1), 7, finish="length"))
    house.report(timing=StepTiming(5, 5, 0.2, 0.1, 0.1, 0.4))
    house.metrics.unreachable.labels("worker").inc()
    house.from_frontend_bad_frame()
    scrape = house.metrics.render().decode()
    found: dict[str, set[str]] = {}
    for line in scrape.splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rsplit(" ", 1)[0].partition("{")
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    assert list(text_string_to_metric_families(scrape))
    return found


ALL = [
    *of_dashboard(),
    *of_alerts(),
    *of_autoscaling(),
    *(Query("TGI's dashboard", text) for text in TGI_QUERIES),
]


@pytest.mark.parametrize("query", ALL, ids=lambda query: query.place)
def test_series_and_labels_exist(query: Query, series: dict[str, set[str]]) -> None:
    assert query.names or "up{" in query.expression
    assert query.names <= series.keys()
    for name, label in query.labels:
        assert label in series[name], f"{name} has no label {label}"


def test_a_misspelt_series_is_noticed(series: dict[str, set[str]]) -> None:
    assert not Query("", "rate(tgi_queue_length[1m])").names <= series.keys()
    assert Query("", 'tgi_queue_size{pod="x", method="y"}').labels == {("tgi_queue_size", "method")}


def test_groupings_use_labels_that_some_series_has(series: dict[str, set[str]]) -> None:
    for query in ALL:
        has = {"le", "instance", "job", "pod", "service"}.union(
            *(series[name] for name in query.names)
        )
        for inside in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", query.expression):
            assert {label.strip() for label in inside.split(",")} <= has, query


def test_the_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"


def test_every_alert_is_explained_to_operators() -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    assert len(names) > 5
    assert [name for name in names if f"`{name}`" not in told] == []
