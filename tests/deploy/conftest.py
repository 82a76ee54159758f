"""What Helm makes of the chart, once for all tests."""

import pytest
import yaml

from tests.deploy.kubernetes import KUBERNETES, Manifest, rendered

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


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What Helm makes of the shipped values, of none, and of others."""
    shipped = (KUBERNETES / "values").glob("*.yaml")
    values: dict[str, Manifest] = {
        path.name: yaml.safe_load(path.read_text()) for path in sorted(shipped)
    }
    values |= {"none": {}, "otherwise": OTHERWISE}
    return rendered(tmp_path_factory.mktemp("values"), values)
