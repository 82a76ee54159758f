"""The pods of the chart and of the LeaderWorkerSet agree with the server that they start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.options import HUB_TOKENS, OPTIONS
from common.routes import ALWAYS_OPEN
from launcher.arguments import parse_arguments
from launcher.resolve import Resolution, resolve
from launcher.start import _AFTER_DRAINING_S
from tests.deploy.kubernetes import Manifest, complaint, manifests, only, pod_of, rendered, shipped


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


def test_gpus_are_asked_for_and_tolerated(house: dict[str, str]) -> None:
    pod = pod_of(manifests(house["otherwise"]))
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
        "tolerations"
    ]
    assert "tolerations" not in pod_of(manifests(house["small.yaml"]))


def gpus(pod: Manifest) -> int:
    """That a pod asks for."""
    count: int = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0)
    return count


def test_all_gpus_of_a_pod_have_a_part_of_the_model(house: dict[str, str]) -> None:
    for pod in pods(house):
        assert resolved(pod)["num_shard"] == max(1, gpus(pod))


@pytest.mark.parametrize("flags", [{"num-replicas": 4}, {"num-shard": 2}, {"sharded": False}])
def test_whoever_says_how_gpus_are_used_is_obeyed(flags: Manifest, tmp_path: Path) -> None:
    values = {"gpu": {"count": 4}, "flags": flags}
    pod = pod_of(manifests(rendered(tmp_path, {"values": values})["values"]))
    assert gpus(pod) == 4
    resolution = resolved(pod)
    for flag, value in flags.items():
        assert resolution[flag.replace("-", "_")] == value
    assert resolution["num_shard"] == flags.get("num-shard", 1)


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
        "securityContext", "volumeMounts", "env",
    ):  # fmt: skip
        assert container[key] == other[key], key
    assert complaint(only("Service", shipped("leader-worker-set.yaml"))) == ""


def test_the_leader_worker_set_promises_what_the_server_can_do() -> None:
    """One pod a group: the shards of a replica find each other on one machine only."""
    (set_, _) = shipped("leader-worker-set.yaml")
    assert set_["spec"]["leaderWorkerTemplate"]["size"] == 1
    assert set(set_["spec"]) == {
        "replicas", "startupPolicy", "rolloutStrategy", "leaderWorkerTemplate",
    }  # fmt: skip
