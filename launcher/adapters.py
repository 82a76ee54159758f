"""``--lora-adapters``: which adapters are meant, on this machine, with files that look right.

An item is ``org/name``, ``org/name@revision``, a directory, or ``name=`` before one of these; what
stands before ``=`` or ``@`` is what requests say. Whether an adapter fits the model is the worker's
business: it knows the model's layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.adapters import CONFIG, WEIGHTS, Adapter, digest_of
from common.errors import StartupError
from launcher.checkpoint import no_weights, path_of, read_header
from launcher.resolve import Resolution

Say = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """One of the list."""

    name: str
    source: str
    """A directory or a repository."""
    revision: str | None


def parse(resolution: Resolution) -> list[Item]:
    """The list as it was given. Raises StartupError."""
    named = resolution.named("lora_adapters")
    items = [_item(text, named) for text in resolution["lora_adapters"]]
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            raise StartupError(
                f"{named} names two adapters {name}: give one of them another name, as other={name}"
            )
        if name == resolution["model_id"]:
            raise StartupError(
                f"{named}: {name} is the name of the model: give the adapter another, as"
                f" other={name}"
            )
    return items


def _item(text: str, named: str) -> Item:
    name, separator, rest = text.partition("=")
    source, at, revision = (rest if separator else text).rpartition("@")
    if not at:
        source, revision = revision, ""
    if not separator:
        name = source
    if not name.strip() or not source.strip() or (at and not revision):
        raise StartupError(
            f"{named}: {text!r} is none of NAME, NAME@REVISION, NAME=PLACE, NAME=PLACE@REVISION"
        )
    return Item(name.strip(), source.strip(), revision.strip() or None)


def find(resolution: Resolution, environ: Mapping[str, str], say: Say) -> list[Adapter]:
    """All of them, downloaded if need be, and looked at. Raises StartupError."""
    found = []
    for item in parse(resolution):
        directory, source = _directory(item, resolution, environ, say)
        verify(directory, item.name)
        found.append(
            Adapter(
                name=item.name,
                digest=digest_of(directory),
                directory=str(directory),
                source=source,
            )
        )
    return found


def find_local(item: Item, resolution: Resolution) -> Path | None:
    """Its directory; None for a repository of the hub. Raises StartupError where it is neither."""
    named = resolution.named("lora_adapters")
    path = path_of(item.source, named)
    if path.is_dir():
        return path.resolve()
    from launcher.hub import is_repository_name

    if item.source.startswith(("/", ".", "~")) or not is_repository_name(item.source):
        raise StartupError(f"{named}: there is no directory {item.source}")
    return None


def verify(directory: Path, name: str) -> None:
    """Raises StartupError unless an adapter's two files are there, and in one piece."""
    names = sorted(path.name for path in directory.iterdir())
    if CONFIG not in names:
        raise StartupError(f"the adapter {name} in {directory} has no {CONFIG}")
    if WEIGHTS not in names:
        raise no_weights(f"the adapter {name} in {directory}", names, f"{WEIGHTS} is not")
    read_header(directory / WEIGHTS)


def _directory(
    item: Item, resolution: Resolution, environ: Mapping[str, str], say: Say
) -> tuple[Path, str]:
    """Where its files are, and what it is called in logs and lists."""
    path = find_local(item, resolution)
    if path is not None:
        if item.revision is not None:
            say(f"{item.source} is a directory: its revision {item.revision} is not looked at")
        return path, str(path)
    from launcher.hub import ADAPTER, fetch, open_hub

    hub = open_hub(resolution["huggingface_hub_cache"], environ, say)
    snapshot = fetch(hub, item.source, item.revision, ADAPTER)
    return snapshot.directory, f"{item.source}@{snapshot.sha}"
