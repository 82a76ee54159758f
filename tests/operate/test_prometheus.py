"""Prometheus itself, with the files that ship, over a server under load.

Needs the Debian package prometheus, and docker-compose for the compose files.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler.reference import declared
from tests.deploy.queries import DEPLOY, ROOT, TGI_QUERIES, of_alerts, of_autoscaling, of_dashboard
from tests.end_to_end.harness import Server, together
from tests.operate.load import use
from tests.operate.picture import draw
from tests.operate.watcher import Prometheus, tool, watching

PICTURE_S = 60
"""A load of so long is drawn."""
TOLD_APART = re.compile(
    r"(tgi_\w+) (?:counter metrics should have \"_total\" suffix"
    r"|non-histogram and non-summary metrics should not have \"_count\" suffix"
    r"|non-counter metrics should not have \"_total\" suffix)"
)
"""What promtool has against names that TGI has made, and that dashboards rely on."""


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Watches the server before, during and after its load."""
    with watching(server, tmp_path_factory.mktemp("prometheus")) as watcher:
        for _ in range(2):
            use(server)
            done = server.metrics()["tgi_request_success"]
            server.until(lambda done=done: watcher.value("tgi_request_success") >= done, 30)
        yield watcher


@pytest.mark.parametrize("query", of_dashboard(), ids=lambda query: query.place)
def test_every_panel_shows_something(prometheus: Prometheus, query: Any) -> None:
    expression = query.expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
    found = prometheus.series(expression)
    assert found, expression
    assert any(series["value"][1] != "NaN" for series in found), expression


@pytest.mark.parametrize("expression", TGI_QUERIES)
def test_tgis_own_dashboard_works(prometheus: Prometheus, expression: str) -> None:
    (service,) = {series["metric"]["container"] for series in prometheus.series("tgi_queue_size")}
    found = prometheus.series(expression.replace("$service", service))
    assert found
    assert any(series["value"][1] != "NaN" for series in found)


@pytest.mark.parametrize("query", of_autoscaling(), ids=lambda query: query.place)
def test_autoscalers_get_a_number(prometheus: Prometheus, query: Any) -> None:
    found = prometheus.series(query.expression)
    assert len(found) == 1, query.expression
    assert float(found[0]["value"][1]) >= 0


def test_prometheus_adapter_discovers_its_series(prometheus: Prometheus) -> None:
    adapter = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["custom"]:
        found = prometheus.series(rule["seriesQuery"])
        assert found
        assert set(rule["resources"]["overrides"]) <= set(found[0]["metric"])


def test_alerts_are_evaluated_and_silent(prometheus: Prometheus, server: Server) -> None:
    def rules() -> list[Any]:
        return [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]

    server.until(lambda: all(rule["health"] != "unknown" for rule in rules()), 30)
    assert {rule["name"] for rule in rules()} == {query.place for query in of_alerts()}
    for rule in rules():
        assert rule["health"] == "ok", rule
        assert rule["state"] == "inactive", rule


def test_promtool_has_nothing_against_a_scrape(prometheus: Prometheus, server: Server) -> None:
    scrape = server.get("/metrics").body.decode()
    done = tool("promtool", "check", "metrics", text=scrape)
    complaints = (done.stdout + done.stderr).splitlines()
    assert [line for line in complaints if not TOLD_APART.fullmatch(line)] == []


def test_alerts_fire_when_they_should() -> None:
    done = tool("promtool", "test", "rules", str(Path(__file__).parent / "alerts_test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_series_of_the_page_is_there(prometheus: Prometheus) -> None:
    have = set(prometheus.api("label/__name__/values"))
    for one in declared():
        for name in filter(None, (one.name, one.alias)):
            assert (f"{name}_bucket" if one.kind == "histogram" else name) in have


def test_docker_compose_reads_the_files() -> None:
    both = ("-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml")
    for files in (both[:2], both):
        done = tool("docker-compose", *files, "config")
        assert done.returncode == 0, done.stderr
        assert set(yaml.safe_load(done.stdout)["services"]) == {"server", "prometheus", "grafana"}


def test_docker_compose_sees_misspelt_keys(tmp_path: Path) -> None:
    """It checks the files against the schema of the compose specification."""
    text = (ROOT / "docker-compose.yml").read_text()
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace("shm_size:", "shm_sise:"))
    done = tool("docker-compose", "-f", str(broken), "config")
    assert done.returncode != 0
    assert "shm_sise" in done.stderr


def test_metrics_can_be_scraped_while_the_server_works(
    prometheus: Prometheus, server: Server
) -> None:
    answers = together(4, lambda i: server.generate("Go on:", max_new_tokens=40 + i))
    assert len(answers) == 4
    assert prometheus.value("min_over_time(up[5m])") == 1


def test_the_dashboard_can_be_drawn(prometheus: Prometheus, server: Server) -> None:
    """docs/dashboard.png is what this leaves in ``build``."""
    begun_s = time.time()
    while time.time() < begun_s + PICTURE_S:
        use(server)
    ended_s = time.time()

    def ask(expression: str) -> list[Any]:
        found = prometheus.api(
            "query_range", query=expression, start=str(begun_s), end=str(ended_s), step="1s"
        )
        matrix: list[Any] = found["result"]
        return matrix

    path = ROOT / "build" / "dashboard.png"
    path.parent.mkdir(exist_ok=True)
    assert draw(ask, path) == []
    assert path.read_bytes().startswith(b"\x89PNG")
