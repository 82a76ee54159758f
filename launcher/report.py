"""What ``--dry-run`` and ``env`` print. Secrets are shown as set or not set, never as they are."""

import platform
import re
import subprocess
import tomllib
from collections.abc import Mapping
from importlib import metadata

from common.option import AUTO
from common.options import HUB_TOKENS, OPTIONS, SECRET_NAMES, SECTIONS
from launcher.children import PACKAGES_ROOT, in_checkout
from launcher.machine import Machine, cpu_name, driver_version, gpu_table, total_memory
from launcher.progress import human
from launcher.resolve import Resolution, Value

PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "pyzmq", "gunicorn",
    "gevent", "falcon", "supervisor",
)  # fmt: skip
_HUB_NAMES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HOME", "CUDA_VISIBLE_DEVICES", *HUB_TOKENS)
_HIDDEN = "set (hidden)"
_CREDENTIALS = re.compile(r"//[^/@\s]+@")
_GIT_LIMIT_S = 5


def version() -> str:
    """Of the installed distribution, or of the source tree."""
    if not in_checkout():
        return version_of("millrace")
    project = tomllib.loads((PACKAGES_ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def version_of(package: str) -> str:
    """A distribution's version, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def dry_run(resolution: Resolution, model_lines: list[str]) -> str:
    """Every setting, its value, and where that came from."""
    lines = ["model:", *(f"  {line}" for line in model_lines)]
    for title, options in SECTIONS.items():
        rows = [
            (option.name, _shown(option.secret, resolution.values[option.name]),
             resolution.values[option.name].source)
            for option in options
            if not (option.no_effect or option.not_yet) or resolution.values[option.name].explicit
        ]  # fmt: skip
        if rows:
            lines.append(f"{title.lower()}:")
            lines += [f"  {name:<30} {text:<24} {source}" for name, text, source in rows]
    return "\n".join(lines)


def _shown(secret: bool, value: Value) -> str:
    if secret and value.value is not None:
        return _HIDDEN
    if value.value is None or value.value == []:
        return "-"
    if isinstance(value.value, bool):
        return str(value.value).lower()
    if isinstance(value.value, list):
        return ",".join(map(str, value.value))
    return AUTO if value.value == AUTO else str(value.value)


def environment_report(machine: Machine, environ: Mapping[str, str]) -> str:
    """Versions, devices, and the names in the environment that mean something here."""
    lines = [
        f"millrace {version()}",
        f"commit: {commit() or 'unknown'}",
        f"python {platform.python_version()} on {platform.platform()}",
        *(f"{package} {version_of(package)}" for package in PACKAGES),
        f"CPU: {cpu_name()}",
        f"cores: {machine.cores}",
        f"memory: {human(total_memory())}",
        f"GPUs: {', '.join(machine.gpus) or 'none'}",
        f"driver: {driver_version(environ) or 'none'}",
        "nvidia-smi:" if machine.gpus else "nvidia-smi: none",
        *(f"  {line}" for line in gpu_table(environ) if machine.gpus),
    ]
    known = [name for option in OPTIONS.values() for name in option.environment_names]
    named = [
        f"  {name}={_environment_value(name, environ[name])}"
        for name in sorted({*known, *_HUB_NAMES})
        if environ.get(name)
    ]
    others = sorted(name for name in environ if name.startswith("TGI_") and name not in known)
    named += [f"  {name} is not a setting of this server" for name in others]
    return "\n".join([*lines, "environment:" if named else "environment: none", *named])


def _environment_value(name: str, text: str) -> str:
    """Without secrets, those in addresses included."""
    return _HIDDEN if name in SECRET_NAMES else _CREDENTIALS.sub("//(hidden)@", text)


def commit() -> str | None:
    """Of the source tree that this code runs from."""
    if not in_checkout():
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(PACKAGES_ROOT), "rev-parse", "HEAD"],  # noqa: S607 - the user's git
            capture_output=True, text=True, timeout=_GIT_LIMIT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
