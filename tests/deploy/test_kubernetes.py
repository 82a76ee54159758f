"""The chart and its manifests: current, valid, and with parts that find each other."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes import (
    KUBERNETES,
    Manifest,
    complaint,
    helm,
    lint,
    manifests,
    only,
    pod_of,
)
from tests.deploy.queries import ALERTS, DASHBOARD

NAMES = sorted(path.name for path in (KUBERNETES / "values").glob("*.yaml"))


@pytest.fixture(params=[*NAMES, "none", "otherwise"])
def release(request: pytest.FixtureRequest, house: dict[str, str]) -> list[Manifest]:
    """All manifests of one release."""
    return manifests(house[request.param])


@pytest.mark.parametrize("name", NAMES)
def test_the_manifests_are_what_the_chart_says(name: str, house: dict[str, str]) -> None:
    header, _, text = (KUBERNETES / "manifests" / name).read_text().partition("---\n")
    assert text == house[name], "run: make manifests"
    assert name in header


def test_helm_has_nothing_against_the_chart() -> None:
    found = lint()
    assert found["total_charts_linted"] == 1
    said = [message["error"] for message in found["messages"]]
    assert said == ["icon is recommended"]


def test_every_manifest_obeys_its_schema(release: list[Manifest]) -> None:
    assert {"Deployment", "Service", "NetworkPolicy"} <= {item["kind"] for item in release}
    assert [found for item in release if (found := complaint(item))] == []


def test_the_schemas_see_unknown_keys(house: dict[str, str]) -> None:
    for manifest in manifests(house["gpu.yaml"]):
        broken = copy.deepcopy(manifest)
        broken.setdefault("spec", {})["replikas"] = 1
        assert complaint(broken), manifest["kind"]


def test_the_parts_of_a_release_find_each_other(release: list[Manifest]) -> None:
    deployment, service = only("Deployment", release), only("Service", release)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in pod_of(release)["containers"][0]["ports"]}
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        only("PodDisruptionBudget", release)["spec"]["selector"]["matchLabels"],
        only("NetworkPolicy", release)["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    named = {item["metadata"]["name"] for item in release}
    for volume in pod_of(release)["volumes"]:
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        assert claim is None or claim in named
    scaled = [
        item for item in release if item["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}
    ]
    for item in scaled:
        assert item["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    # With both, every upgrade would set the number back.
    assert bool(scaled) != ("replicas" in deployment["spec"])


def test_the_operator_scrapes_what_the_alerts_ask_for(house: dict[str, str]) -> None:
    release = manifests(house["gpu.yaml"])
    monitor, service = only("ServiceMonitor", release), only("Service", release)
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "millrace"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert only("PrometheusRule", release)["spec"] == yaml.safe_load(ALERTS.read_text())
    dashboard = only("ConfigMap", manifests(house["otherwise"]))["data"]["millrace.json"]
    assert dashboard == DASHBOARD.read_text().strip()


def test_secrets_are_in_secrets_alone(house: dict[str, str]) -> None:
    release = manifests(house["otherwise"])
    secrets = {item["metadata"]["name"]: item for item in release if item["kind"] == "Secret"}
    assert secrets["millrace-hub"]["stringData"] == {"HF_TOKEN": "hf_secret"}
    assert secrets["millrace-keys"]["stringData"] == {"keys": "one\ntwo"}
    rest = [item for item in release if item["kind"] != "Secret"]
    assert "hf_secret" not in str(rest)
    for shipped_release in (house["gpu.yaml"], house["small.yaml"]):
        assert "Secret" not in {item["kind"] for item in manifests(shipped_release)}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"weights": {"kind": "disk"}}, "kind"),
        ({"gpu": {"count": "one"}}, "count"),
        ({"flags": {"port": 80}}, "flags.port is not set there"),
        ({"replicas": 2}, "weights.accessMode to ReadWriteMany"),
        ({"autoscaling": {"kind": "keda"}}, "several pods cannot share weights"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_with_a_sentence(
    values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    done = helm(tmp_path, {"values": values})
    assert done.returncode != 0
    assert words in done.stderr
