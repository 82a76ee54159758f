"""The hub, and its models on this machine: the hub client's cache layout, read and written.

``models--org--name/`` holds ``blobs/<etag>``, ``snapshots/<commit>/<file>`` (links to blobs) and
``refs/<branch>`` (a commit). Knows no network.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository on this machine."""

    directory: Path
    sha: str
    pipeline_tag: str | None = None


@dataclass(frozen=True)
class Hub:
    """Where models come from and where they are kept."""

    cache: Path
    say: Callable[[str], None]
    endpoint: str | None = None
    token: str | None = None
    offline: bool = False
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    pause_s: float = 1.0

    @property
    def name(self) -> str:
        """For sentences."""
        return f"the hub at {self.endpoint}" if self.endpoint else "the hub"


def home_of(hub: Hub, repository: str) -> Path:
    """Where everything of a repository is kept."""
    return hub.cache / f"models--{repository.replace('/', '--')}"


def cached(
    hub: Hub, repository: str, revision: str | None, config: str = "config.json"
) -> Snapshot | None:
    """What has been downloaded before, without asking anybody; ``config`` has to be there."""
    home = home_of(hub, repository)
    sha = revision or "main"
    if not _COMMIT.fullmatch(sha):
        try:
            sha = (home / "refs" / sha).read_text().strip()
        except OSError:
            return None
    directory = home / "snapshots" / sha
    complete = (directory / config).exists() and any(directory.glob("*.safetensors"))
    return Snapshot(directory, sha) if complete else None


def point(pointer: Path, blob: Path) -> None:
    """The cache's layout: a snapshot's files are relative links to blobs.

    RACE: another launcher may do the same: in one act, and at no moment is there no link.
    """
    made = pointer.with_name(f".{secrets.token_hex(8)}.link")
    made.symlink_to(os.path.relpath(blob, pointer.parent))
    made.replace(pointer)


def remember(hub: Hub, repository: str, revision: str | None, sha: str) -> None:
    """Which commit the branch or tag stood for, to be found again offline."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return
    reference = home_of(hub, repository) / "refs" / (revision or "main")
    if not reference.exists() or reference.read_text() != sha:
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(sha)
