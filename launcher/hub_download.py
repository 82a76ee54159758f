"""Brings the wanted files of one commit into the cache, several at a time.

Looks up sizes first, so that a disk without room is found before the first byte.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from common.errors import StartupError
from launcher.hub_cache import Hub, Snapshot, home_of, point
from launcher.progress import Progress, human
from launcher.transfer import RemoteFile, Transfer, partial_path

ANSWER_LIMIT_S = 15.0
_THREADS = 4
_PLAIN_HTTP_LIMIT_BYTES = 50 * 10**9
"""The hub serves larger files only through its own protocol."""


def download(hub: Hub, repository: str, snapshot: Snapshot, names: list[str]) -> None:
    """Complete ``snapshot``. Raises StartupError and the HTTP client's errors."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    blobs = home_of(hub, repository) / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.directory.mkdir(parents=True, exist_ok=True)
    files = _look_up(hub, repository, snapshot.sha, names)
    total = sum(file.size or 0 for file in files)
    here = sum(_size(partial_path(blobs, file.etag)) or _size(blobs / file.etag) for file in files)
    free = hub.free_bytes(hub.cache)
    if total - here > free:
        raise StartupError(
            f"{repository} needs {human(total - here)} more in {hub.cache}, where {human(free)} "
            "are free: make room, or choose another place with --huggingface-hub-cache"
        )
    hub.say(
        f"downloading {len(files)} files of {repository}, {human(total - here)}, to {hub.cache}"
    )
    progress = Progress(total, here, say=hub.say)
    headers = build_hf_headers(token=hub.token, library_name="millrace")
    transfer = Transfer(blobs, headers, progress, pause_s=hub.pause_s)

    def bring(file: RemoteFile) -> None:
        if (file.size or 0) > _PLAIN_HTTP_LIMIT_BYTES:
            _by_client(hub, repository, snapshot.sha, file.name)
            return
        transfer.fetch(file)
        point(snapshot.directory / file.name, blobs / file.etag)

    try:
        _all(bring, files, transfer.stop)
    finally:
        progress.close()
    hub.say(f"{repository} is complete")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _look_up(hub: Hub, repository: str, sha: str, names: list[str]) -> list[RemoteFile]:
    """Etag and size of each file. The first one alone, so that a gate is met once."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def one(name: str) -> RemoteFile:
        url = hf_hub_url(repository, name, revision=sha, endpoint=hub.endpoint)
        found = get_hf_file_metadata(
            url, token=hub.token, timeout=ANSWER_LIMIT_S, endpoint=hub.endpoint
        )
        if not found.etag or "/" in found.etag:
            raise StartupError(f"{hub.name} names no version of {name}: is HF_ENDPOINT a hub?")
        return RemoteFile(name, url, found.etag, found.size)

    first = one(names[0])
    with ThreadPoolExecutor(_THREADS) as pool:
        return [first, *pool.map(one, names[1:])]


def _all(bring: Callable[[RemoteFile], None], files: list[RemoteFile], stop: Any) -> None:
    """``bring`` for all files, some at a time; the first failure, or an interrupt, ends all."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        done, _ = wait([pool.submit(bring, file) for file in files], return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _by_client(hub: Hub, repository: str, sha: str, name: str) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        repository, name, revision=sha, cache_dir=hub.cache, token=hub.token, endpoint=hub.endpoint
    )
