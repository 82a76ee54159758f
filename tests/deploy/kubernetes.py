"""The chart as Helm renders it, and the schemas that its manifests must obey.

Helm's code runs in a process of its own. Knows the files below ``deploy/kubernetes``, nothing of
what they should say.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy.queries import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.27", "1.37")
"""The oldest Kubernetes that the chart admits, and the newest with schemas to be had."""
CUSTOM = {
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
    "ServiceMonitor": "cloudcoil.models.prometheus_operator.v1",
    "PrometheusRule": "cloudcoil.models.prometheus_operator.v1",
}
"""Kinds of KEDA and of the Prometheus operator, and where the types made from their definitions
are: imported where they are used, as that takes seconds, and pytest imports all tests everywhere.
"""
_LINT = (
    "import helm_python, json, sys; print(json.dumps(helm_python.lint(sys.argv[1], strict=True)))"
)

Manifest = dict[str, Any]


def manifests(text: str) -> list[Manifest]:
    """Every document of a file."""
    return [document for document in yaml.safe_load_all(text) if document]


def shipped(name: str) -> list[Manifest]:
    """A file of manifests."""
    return manifests((KUBERNETES / name).read_text())


def only(kind: str, among: list[Manifest]) -> Manifest:
    """The one manifest of a kind."""
    (found,) = [manifest for manifest in among if manifest["kind"] == kind]
    return found


def pod_of(release: list[Manifest]) -> Manifest:
    """The pods of a release's Deployment."""
    spec: Manifest = only("Deployment", release)["spec"]["template"]["spec"]
    return spec


def helm(directory: Path, values: Mapping[str, Manifest]) -> subprocess.CompletedProcess[str]:
    """Render the chart once for each set of values; JSON of name to manifests on its output."""
    paths = []
    for name, content in values.items():
        paths.append(directory / name)
        paths[-1].write_text(yaml.safe_dump(content))
    command = [sys.executable, str(KUBERNETES / "render.py"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(directory: Path, values: Mapping[str, Manifest]) -> dict[str, str]:
    """What the chart makes of each set of values."""
    done = helm(directory, values)
    assert done.returncode == 0, done.stderr
    return {Path(path).name: text for path, text in json.loads(done.stdout).items()}


def lint() -> Manifest:
    """What ``helm lint --strict`` has to say."""
    command = [sys.executable, "-c", _LINT, str(KUBERNETES / "chart")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: Manifest = json.loads(done.stdout)
    return found


def complaint(manifest: Manifest) -> str:
    """What the schemas have against a manifest; empty if nothing. Unknown keys count."""
    if manifest["kind"] in CUSTOM:
        return _custom(manifest)
    try:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{version}: {list(error.path)}: {error.message}"
    return ""


def _custom(manifest: Manifest) -> str:
    """These types drop keys that they do not know, so what they keep must be everything."""
    kind = manifest["kind"]
    type_of = getattr(import_module(CUSTOM[kind]), kind)
    try:
        known = type_of.model_validate(manifest)
    except ValueError as error:
        return str(error)
    kept = known.model_dump(by_alias=True, exclude_unset=True, mode="json")
    return "" if kept == manifest else f"only this is known: {kept}"
