"""Every query of dashboard, alert rules and autoscalers, and what TGI's own dashboard asks for.

Knows the files, nothing of the series that there are.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "millrace.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
_NAME = re.compile(r"\b(?:tgi|millrace)_\w+")
_SELECTOR = re.compile(r"\b((?:tgi|millrace)_\w+)\{([^}]*)\}")
_OF_THE_SCRAPER = {"instance", "job", "container", "pod", "namespace", "service"}

_TGI_SHAPES = {
    "histogram_quantile(0.5, sum by (le) (rate({}_bucket{{container=~'$service'}}[1m])))": (
        "tgi_request_queue_duration", "tgi_request_input_length", "tgi_request_generated_tokens",
        "tgi_request_mean_time_per_token_duration", "tgi_request_skipped_tokens",
        "tgi_request_duration",
    ),
    "histogram_quantile(0.5, sum by (le) "
    "(rate({}_bucket{{method='prefill', container=~'$service'}}[1m])))": (
        "tgi_batch_inference_duration",
    ),
    "histogram_quantile(0.5, sum by (le) "
    "(rate({}_bucket{{method='decode', container=~'$service'}}[1m])))": (
        "tgi_batch_inference_duration", "tgi_batch_forward_duration", "tgi_batch_decode_duration",
        "tgi_batch_filter_duration", "tgi_batch_concat_duration",
    ),
    "sum(rate({}{{container=~'$service'}}[1m]))": (
        "tgi_request_generated_tokens_sum", "tgi_request_generated_tokens_count",
        "tgi_request_success", "tgi_request_count",
    ),
    "sum by (err) (rate({}{{container=~'$service'}}[1m]))": ("tgi_request_failure",),
    "sum by (reason) (rate({}{{container=~'$service'}}[1m]))": ("tgi_batch_concat",),
    "max by (pod) ({}{{container=~'$service'}})": (
        "tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens",
    ),
}  # fmt: skip
TGI_QUERIES = [shape.format(name) for shape, names in _TGI_SHAPES.items() for name in names]
"""Each series that TGI's dashboard needs, in the way it asks."""


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands."""

    place: str
    expression: str

    @property
    def names(self) -> set[str]:
        """The series that it names."""
        return set(_NAME.findall(self.expression))

    @property
    def labels(self) -> set[tuple[str, str]]:
        """(series, label) of every selector, without labels that the scraper adds."""
        return {
            (name, label)
            for name, inside in _SELECTOR.findall(self.expression)
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside)
            if label not in _OF_THE_SCRAPER
        }


def dashboard() -> Any:
    """The dashboard as Grafana reads it."""
    return json.loads(DASHBOARD.read_text())


def of_dashboard() -> list[Query]:
    """Every target of every panel."""
    return [
        Query(f"{panel['title']} {target['refId']}", target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


def of_alerts() -> list[Query]:
    """Every rule."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [Query(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def of_autoscaling() -> list[Query]:
    """What KEDA asks, and what prometheus-adapter asks for the HPA."""
    kubernetes = DEPLOY / "kubernetes"
    manifests = yaml.safe_load_all((kubernetes / "manifests" / "gpu.yaml").read_text())
    (scaled,) = [found for found in manifests if found["kind"] == "ScaledObject"]
    queries = [
        Query(f"KEDA {trigger['name']}", trigger["metadata"]["query"])
        for trigger in scaled["spec"]["triggers"]
    ]
    adapter = yaml.safe_load((kubernetes / "prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["custom"]:
        asked = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
        queries.append(
            Query(f"HPA {rule['seriesQuery']}", asked.replace("<<.LabelMatchers>>", 'pod!=""'))
        )
    return queries
