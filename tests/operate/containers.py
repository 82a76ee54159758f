"""Builds the image with podman and buildah: no daemon, a container storage of its own.

Runs in the tests' process, as root. Knows the tools' command lines, nothing of what is asked of the
image. Packages come from where pip is set up to find them on this machine: its configuration is
handed to the build as a secret, and the local directories that it names are mounted, so that
nothing of it gets into the image.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.harness import ROOT

SUITE = "bookworm"
CACHE = ROOT / "build" / "image"
BASE = "localhost/millrace-test-base"
IMAGE = "localhost/millrace-test"
_CERTIFICATES = "/pip-certificates.pem"


def command(*arguments: str, limit_s: float = 1800) -> str:
    """Run to the end; what it printed. Fails with its complaints."""
    done = subprocess.run(
        ["nice", "-n", "15", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-4000:]}"
    return done.stdout


@dataclass(frozen=True)
class Store:
    """A container storage of its own, beside that of the machine."""

    directory: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """For podman and buildah."""
        return (
            "--root", str(self.directory / "root"), "--runroot", str(self.directory / "run"),
            "--storage-driver", "vfs",
        )  # fmt: skip

    def podman(self, *arguments: str) -> str:
        return command("podman", *self.flags, *arguments)

    def buildah(self, *arguments: str) -> str:
        return command("buildah", *self.flags, *arguments)

    def remove(self) -> None:
        """Everything that was built, containers included. buildah would take minutes for them."""
        if self.directory.exists():
            self.buildah("umount", "--all")
            mounts = Path("/proc/self/mounts").read_text()
            assert str(self.directory) not in mounts, "something is still mounted there"
            shutil.rmtree(self.directory)


def base_image(store: Store, suite: str = SUITE) -> str:
    """A Debian made by debootstrap; its archive is kept for the next time."""
    archive = CACHE / f"{suite}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            root = Path(directory) / "root"
            command("debootstrap", "--variant=minbase", suite, str(root))
            command("tar", "-C", str(root), "-cf", f"{directory}/archive", ".")
            (Path(directory) / "archive").rename(archive)
    store.podman("import", "-q", str(archive), BASE)
    return BASE


def build_image(store: Store, base: str, *arguments: str) -> str:
    """The repository's Dockerfile on ``base``; the image's name."""
    with tempfile.TemporaryDirectory() as directory:
        pip = Path(directory) / "pip.conf"
        text, mounts = pip_configuration()
        pip.write_text(text)
        volumes = [part for mount in mounts for part in ("--volume", f"{mount}:ro")]
        store.podman(
            "build", "--isolation", "chroot", "--format", "docker", "--layers=false",
            "--pull-never", "--build-arg", f"BASE={base}", "--secret", f"id=pip,src={pip}",
            *volumes, *arguments, "--tag", IMAGE, str(ROOT),
        )  # fmt: skip
    return IMAGE


def pip_configuration() -> tuple[str, list[str]]:
    """pip's settings on this machine as one file, and ``FROM:TO`` mounts of what they name."""
    listed = command("python3", "-m", "pip", "config", "list")
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the strongest last
        settings |= re.findall(rf"^{section}\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    settings.pop("constraint", None)  # the locks alone decide about versions
    mounts = []
    if "cert" in settings:
        mounts.append(f"{settings['cert']}:{_CERTIFICATES}")
        settings["cert"] = _CERTIFICATES
    for word in " ".join(settings.values()).split():
        # An index in files keeps the packages beside its pages.
        path = Path(word.removeprefix("file://")).parent if word.startswith("file:") else Path(word)
        if path.is_absolute() and path.is_dir():
            mounts.append(f"{path}:{path}")
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join(["[global]", *lines, ""]), mounts
