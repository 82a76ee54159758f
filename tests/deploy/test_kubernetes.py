"""The chart and its manifests: whole, valid, and in agreement with the server they start."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.options import HUB_TOKENS, OPTIONS
from common.routes import ALWAYS_OPEN
from launcher.arguments import parse_arguments
from launcher.resolve import Resolution, resolve
from launcher.start import _AFTER_DRAINING_S
from tests.deploy.kubernetes import (
    KUBERNETES,
    Manifest,
    complaint,
    helm,
    lint,
    manifests,
    only,
    rendered,
    shipped,
)
from tests.deploy.queries import ALERTS, DASHBOARD

NAMES = sorted(path.name for path in (KUBERNETES / "values").glob("*.yaml"))
OTHERWISE: Manifest = {
    "image": {"digest": "sha256:" + "0" * 64},
    "replicas": 3,
    "revision": "main",
    "flags": {
        "payload-limit": 2_000_000, "waiting-served-ratio": 1.2, "prefix-caching": True,
        "cors-allow-origin": ["https://a.example", "https://b.example"],
    },
    "environment": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
    "gpu": {"count": 2, "runtimeClassName": "nvidia"},
    "weights": {"kind": "pod", "storageClassName": "fast"},
    "hub": {"token": "hf_secret"},
    "apiKeys": {"keys": ["one", "two"]},
    "service": {"headless": True, "annotations": {"a": "b"}},
    "strategy": {"type": "Recreate"},
    "drain": {"preStopSeconds": 20, "timeoutSeconds": 600},
    "autoscaling": {"kind": "hpa"},
    "networkPolicy": {
        "clients": [{"podSelector": {}}],
        "egress": [{"ports": [{"port": 4317}]}],
    },
    "monitoring": {"dashboard": True},
    "podLabels": {"team": "text"},
    "podAnnotations": {"note": "x"},
    "nodeSelector": {"zone": "a"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "imagePullSecrets": [{"name": "registry"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
}  # fmt: skip
"""Everything that the shipped values leave alone."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What Helm makes of the shipped values, of none, and of others."""
    values = {name: yaml.safe_load((KUBERNETES / "values" / name).read_text()) for name in NAMES}
    values |= {"none": {}, "otherwise": OTHERWISE}
    return rendered(tmp_path_factory.mktemp("values"), values)


@pytest.fixture(params=[*NAMES, "none", "otherwise"])
def release(request: pytest.FixtureRequest, house: dict[str, str]) -> list[Manifest]:
    """All manifests of one release."""
    return manifests(house[request.param])


def pod_of(release: list[Manifest]) -> Manifest:
    spec: Manifest = only("Deployment", release)["spec"]["template"]["spec"]
    return spec


def groups() -> Manifest:
    """The pods of the LeaderWorkerSet."""
    spec = only("LeaderWorkerSet", shipped("leader-worker-set.yaml"))["spec"]
    template: Manifest = spec["leaderWorkerTemplate"]["workerTemplate"]
    return template


def resolved(pod: Manifest) -> Resolution:
    """What the server in a pod makes of its arguments and environment."""
    (container,) = pod["containers"]
    environ = {item["name"]: item.get("value", "x") for item in container.get("env", [])}
    known = {name for option in OPTIONS.values() for name in option.environment_names}
    assert set(environ) <= known | {*HUB_TOKENS, "HF_HUB_OFFLINE"}
    # The image sets the port; the pod has an address and a name in HOSTNAME.
    return resolve(
        parse_arguments(container["args"]).given, environ | {"PORT": "80", "HOSTNAME": "millrace-x"}
    )


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


def test_the_leader_worker_set_is_a_pod_like_the_others() -> None:
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
        "spec": {"selector": {"matchLabels": {}}, "template": groups()},
    }  # fmt: skip
    assert complaint(deployment) == ""
    container = groups()["spec"]["containers"][0]
    other = pod_of(shipped("manifests/gpu.yaml"))["containers"][0]
    for key in (
        "image", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle",
        "resources", "securityContext", "volumeMounts", "env",
    ):  # fmt: skip
        assert container[key] == other[key], key
    assert complaint(only("Service", shipped("leader-worker-set.yaml"))) == ""


def test_the_leader_worker_set_promises_what_the_server_can_do() -> None:
    """One pod a group, as long as a replica cannot be spread over machines."""
    (set_, _) = shipped("leader-worker-set.yaml")
    assert set_["spec"]["leaderWorkerTemplate"]["size"] == 1
    assert set(set_["spec"]) == {
        "replicas", "startupPolicy", "rolloutStrategy", "leaderWorkerTemplate",
    }  # fmt: skip


def pods(house: dict[str, str]) -> Iterator[Manifest]:
    for text in house.values():
        yield pod_of(manifests(text))
    yield groups()["spec"]


def test_the_server_understands_its_flags_and_environment(house: dict[str, str]) -> None:
    for pod in pods(house):
        (container,) = pod["containers"]
        resolution = resolved(pod)
        assert [note.text for note in resolution.notes if note.level == "warning"] == []
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert resolution["port"] == ports["http"]
        assert resolution["prometheus_port"] == ports["metrics"]


def test_values_of_flags_are_those_that_were_given(house: dict[str, str]) -> None:
    resolution = resolved(pod_of(manifests(house["otherwise"])))
    assert resolution["payload_limit"] == 2_000_000
    assert resolution["waiting_served_ratio"] == 1.2
    assert resolution["cors_allow_origin"] == ["https://a.example", "https://b.example"]
    assert resolution["revision"] == "main"


def test_the_grace_covers_the_way_out(house: dict[str, str]) -> None:
    for pod in pods(house):
        (container,) = pod["containers"]
        word, sleep_s = container["lifecycle"]["preStop"]["exec"]["command"]
        drain_s = resolved(pod)["graceful_termination_timeout"]
        assert word == "sleep"
        assert pod["terminationGracePeriodSeconds"] > int(sleep_s) + drain_s + _AFTER_DRAINING_S


def test_probes_are_apart_and_need_no_key(house: dict[str, str]) -> None:
    for pod in pods(house):
        (container,) = pod["containers"]
        probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
        paths = [probe["httpGet"]["path"] for probe in probes]
        assert paths == ["/health", "/health/ready", "/health/progress"]
        assert set(paths) <= ALWAYS_OPEN
        # A hang is mended by the server itself, if it is given the time.
        patience_s = probes[2]["periodSeconds"] * probes[2]["failureThreshold"]
        assert patience_s > 10 * resolved(pod)["hang_timeout"]


def test_pods_have_few_rights(house: dict[str, str]) -> None:
    for pod in pods(house):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all(port["containerPort"] >= 1024 for port in container["ports"])


def test_volumes_are_mounted_where_the_server_writes(house: dict[str, str]) -> None:
    for pod in pods(house):
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert mounts.keys() == volumes.keys()
        assert {"/data", "/tmp", "/dev/shm"} <= set(mounts.values())
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        key_file = resolved(pod)["api_key_file"]
        assert (key_file is not None) == ("keys" in mounts)
        assert key_file is None or str(Path(key_file).parent) == mounts["keys"]


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


def test_gpus_are_asked_for_and_tolerated(house: dict[str, str]) -> None:
    pod = pod_of(manifests(house["otherwise"]))
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
        "tolerations"
    ]
    assert "tolerations" not in pod_of(manifests(house["small.yaml"]))


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
