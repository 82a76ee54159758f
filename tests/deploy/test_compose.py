"""The compose files: what they mount exists, what they say is understood by those they start."""

import re
from typing import Any

import pytest
import yaml

from common.options import HUB_TOKENS, OPTIONS
from launcher.arguments import parse_arguments
from launcher.resolve import resolve
from tests.deploy.queries import DEPLOY, ROOT

KEYS = {
    "image", "build", "command", "environment", "ports", "volumes", "shm_size", "restart",
    "stop_grace_period", "healthcheck", "read_only", "tmpfs", "cap_drop", "security_opt",
    "sysctls", "depends_on", "deploy",
}  # fmt: skip
"""Of a service in the compose specification, as far as they are used."""


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def plain(text: str) -> str:
    """A value as it is when nothing is set in the environment."""
    return re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda found: found[1] or "", text)


SERVICES: dict[str, Any] = read("docker-compose.yml")["services"]


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_only_keys_of_the_specification(name: str) -> None:
    document = read(name)
    assert set(document) <= {"services", "volumes"}
    for service in document["services"].values():
        assert set(service) <= KEYS


def test_every_mount_exists_and_every_volume_is_declared() -> None:
    declared = set(read("docker-compose.yml")["volumes"])
    used = set()
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
            else:
                used.add(source)
    assert used == declared


def test_the_server_understands_its_flags_and_environment() -> None:
    server = SERVICES["server"]
    line = parse_arguments([plain(word) for word in server["command"]])
    environ = {name: plain(text) for name, text in server["environment"].items()}
    resolution = resolve(line.given, environ | {"PORT": "80"})
    assert resolution["model_id"] == OPTIONS["model_id"].default
    assert resolution["api_key"] is None
    assert resolution["port"] == 80
    assert resolution.notes == []
    known = {name for option in OPTIONS.values() for name in option.environment_names}
    assert set(server["environment"]) <= known | set(HUB_TOKENS)


def test_the_server_is_watched_and_ends_in_peace() -> None:
    server = SERVICES["server"]
    assert server["healthcheck"]["test"] == ["CMD", "curl", "-f", "http://localhost:80/health"]
    assert server["restart"] == "unless-stopped"
    assert server["shm_size"] == "1gb"
    assert server["ports"] == ["${MILLRACE_PORT:-8080}:80"]
    drain_s = OPTIONS["graceful_termination_timeout"].default
    assert int(server["stop_grace_period"].removesuffix("s")) > drain_s + 10
    assert {volume.split(":")[1] for volume in server["volumes"]} == {"/data"}


def test_the_gpu_file_changes_the_server_alone() -> None:
    (service,) = read("docker-compose.gpu.yml")["services"].items()
    assert service[0] == "server"
    assert service[1]["build"]["args"] == {"VARIANT": "cuda"}
    (device,) = service[1]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    environ = {name: plain(text) for name, text in service[1]["environment"].items()}
    resolution = resolve(parse_arguments([]).given, environ)
    assert (resolution["num_shard"], resolution["num_replicas"]) == (1, 1)
    assert resolution.notes == []


def test_prometheus_scrapes_the_server() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) <= set(SERVICES)
    assert found["port"] == OPTIONS["prometheus_port"].default
    assert job["job_name"] == "millrace"
    for name in config["rule_files"]:
        assert (DEPLOY / "prometheus" / name).is_file()


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "millrace.yml").read_text())[
        "providers"
    ]
    mounted = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounted
