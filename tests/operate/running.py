"""Runs the image's own entry point, with buildah, or by hand where a read-only root is wanted.

Runs in the tests' process, as root, without a container engine: there is no network of its own, so
the ports are chosen by flags. Knows nothing of what the server is asked.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.end_to_end.harness import STOP_LIMIT_S, Server, free_port, logged, wait_until_healthy
from tests.operate.containers import Store
from tests.processes import alive, children_of

_READ_ONLY = """
root=$1 settings=$2 uid=$3 gid=$4; shift 4
mount --bind "$root" "$root" && mount -o remount,ro,bind "$root"
mount -t tmpfs none "$root/tmp"
mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc"
cd /
exec chroot "$root" env -i $settings setpriv --reuid "$uid" --regid "$gid" --clear-groups \\
    --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""
"""In new namespaces: the container's files read-only, /tmp alone writable, no privileges."""


@dataclass
class Container(Server):
    """A running container; its first process may be below the tools that started it."""

    def stop(self) -> int:
        """SIGTERM to the container's first process; the exit status. Nothing may be left."""
        family = children_of(self.process.pid)
        # An engine would signal this process; buildah and unshare do not hand signals on.
        first = next(iter(self.pids("launcher.supervise")), self.process.pid)
        os.kill(first, signal.SIGTERM)
        status = self.process.wait(STOP_LIMIT_S)
        assert not [pid for pid in family if alive(pid)], self.tail()
        return status


def run(store: Store, image: str, *arguments: str) -> AbstractContextManager[Container]:
    """With the image's own user and environment, healthy; nothing of it runs in the end."""
    name, config = _container(store, image)
    tool = ("buildah", *store.flags, "run", "--isolation", "chroot", name, "--")
    return _running((*tool, *config["Entrypoint"], *arguments))


def run_read_only(
    store: Store, image: str, user: str, *arguments: str
) -> AbstractContextManager[Container]:
    """As process 1, on a read-only root, as an arbitrary ``user`` ("uid:gid"); else as ``run``."""
    name, config = _container(store, image)
    root = store.buildah("mount", name).strip()
    tool = ("unshare", "--mount", "--pid", "--fork", "bash", "-ec", _READ_ONLY, "bash", root)
    settings = " ".join(config["Env"])
    return _running((*tool, settings, *user.split(":"), *config["Entrypoint"], *arguments))


def inside(store: Store, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """One command in a new container of the image, as its user; its output and status."""
    name, _ = _container(store, image)
    return subprocess.run(
        ["buildah", *store.flags, "run", "--isolation", "chroot", name, "--", *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def configuration(store: Store, image: str) -> dict[str, object]:
    """Docker's view of the image: user, environment, health check."""
    found = json.loads(store.buildah("inspect", "--type", "image", image))
    config: dict[str, object] = found["Docker"]["config"]
    return config


def _container(store: Store, image: str) -> tuple[str, dict[str, list[str]]]:
    name = store.buildah("from", "--pull-never", image).strip()
    return name, json.loads(store.buildah("inspect", name))["OCIv1"]["config"]


@contextmanager
def _running(command: tuple[str, ...]) -> Iterator[Container]:
    port, prometheus_port = free_port(), free_port()
    ports = ("--port", str(port), "--prometheus-port", str(prometheus_port))
    with logged([*command, *ports]) as (process, *log):
        container = Container(process, port, prometheus_port, *log)
        wait_until_healthy(container)
        yield container
