"""A real Prometheus with the files that ship, and its tools.

Runs in the tests' process, which starts it. Needs the Debian package prometheus.
"""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.queries import ALERTS, DEPLOY, ROOT
from tests.end_to_end.harness import Server, free_port
from tests.processes import started


def tool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of the programs to its end."""
    if shutil.which(arguments[0]) is None:
        package = "docker-compose" if arguments[0] == "docker-compose" else "prometheus"
        pytest.fail(f"install first: apt-get install {package}", pytrace=False)
    return subprocess.run(
        arguments, input=text, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class Prometheus:
    """A running Prometheus."""

    port: int

    def api(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str) -> list[Any]:
        found: list[Any] = self.api("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """Of the only series; 0 if there is none, or nobody answers yet."""
        try:
            found = self.series(expression)
        except OSError:
            return 0
        return float(found[0]["value"][1]) if found else 0

    def fired(self, alert: str) -> bool:
        """Whether an alert has ever fired."""
        state = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
        return self.value(f"sum(count_over_time({state}[1h]))") > 0


def shipped_configuration(directory: Path, port: int, *, is_patient: bool = True) -> Path:
    """``prometheus.yml`` as it ships, but for one server on this machine, and in a hurry.

    Without patience, alerts fire as soon as their condition holds, and those that ask about a few
    minutes ask about as many seconds as a scrape needs to be seen.
    """
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    # The labels are those that the Prometheus operator adds to the pods of a Service.
    labels = {"namespace": "millrace", "service": "millrace"}
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]
    alerts = ALERTS.read_text()
    if not is_patient:
        alerts = re.sub(r"for: \d+m", "for: 0s", alerts)
        alerts = re.sub(r"\[[25]m\]", "[10s]", alerts)
    (directory / ALERTS.name).write_text(alerts)
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def watching(server: Server, directory: Path, *, is_patient: bool = True) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a server once a second, from now on."""
    path = shipped_configuration(directory, server.prometheus_port, is_patient=is_patient)
    assert tool("promtool", "check", "config", str(path)).returncode == 0
    watcher = Prometheus(free_port())
    with started(
        [
            "prometheus", f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{watcher.port}", "--log.level=error",
        ],
    ):  # fmt: skip
        server.until(lambda: watcher.value("count_over_time(up[1m])") >= 2, 60)
        yield watcher
