"""The API keys: which requests need one, which keys are right, and their file when it changes.

Runs in every front-end process, and knows only digests of keys. Health is always open; what else
is, ``--open-routes`` says.
"""

import hmac
import logging
import os
from collections.abc import Callable, Iterable

import falcon

from common.errors import ErrorKind, RequestError
from common.keys import KeyFileError, digest, read_key_file
from common.routes import ALWAYS_OPEN
from common.settings import Settings

LOOK_EVERY_S = 1.0
"""At most so often is the key file's modification time looked at."""
HEADERS = ("x-api-key", "api-key")
"""Where Anthropic's and Azure's clients put the key; all others use Authorization."""

_REFUSAL = "The API key is missing or wrong: send one as Authorization: Bearer KEY"

_Stamp = tuple[int, int, int, int]

_log = logging.getLogger(__name__)


class KeyRing:
    """The keys that open the server. They are read again when their file changes."""

    def __init__(self, digests: list[str], path: str | None, clock: Callable[[], float]) -> None:
        """``digests`` are fixed; ``path`` is the key file, if there is one.

        A file that cannot be used at this moment gives no keys until it is mended: the launcher
        has seen it whole, so it was broken since.
        """
        self._fixed = digests
        self._from_file: list[str] = []
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._stamp: _Stamp | None = None
        """Of what has been read."""
        self._unread: tuple[_Stamp | None] | None = None
        """Of what could not be: it is tried again, but told once."""
        if path is not None:
            self._read(path)

    def accepts(self, candidates: Iterable[bytes]) -> bool:
        """Whether one of the keys that a client sent is right.

        Every one is compared with all of ours, so that the time tells nothing.
        """
        self._look()
        right = False
        for candidate in candidates:
            given = digest(candidate)
            for known in (*self._fixed, *self._from_file):
                right |= hmac.compare_digest(given, known)
        return right

    def _look(self) -> None:
        now = self._clock()
        if self._path is None or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if _stamp_of(self._path) != self._stamp:
            self._read(self._path)

    def _read(self, path: str) -> None:
        # RACE: taken before reading, so that whoever writes meanwhile is noticed next time.
        stamp, before = _stamp_of(path), self._stamp
        try:
            self._from_file = read_key_file(path)
        except KeyFileError as error:
            if self._unread != (stamp,):
                _log.warning("the key file %s; the keys known so far stay", error)
            self._unread = (stamp,)
            return
        self._stamp, self._unread = stamp, None
        if before is not None:
            _log.info("the key file has changed: it holds %d keys", len(self._from_file))


class Keys:
    """Everything but the open paths needs a key."""

    def __init__(self, ring: KeyRing, open_paths: Iterable[str] = ()) -> None:
        self._ring = ring
        self._open = ALWAYS_OPEN | frozenset(open_paths)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (UNAUTHORIZED)."""
        if req.method in ("GET", "HEAD") and req.path in self._open:
            return
        if not self._ring.accepts(keys_sent(req)):
            resp.set_header("WWW-Authenticate", "Bearer")
            raise RequestError(ErrorKind.UNAUTHORIZED, _REFUSAL)


def keys_of(settings: Settings, clock: Callable[[], float]) -> Keys | None:
    """The middleware that the settings ask for; None while everything is open."""
    if not settings.needs_key:
        return None
    ring = KeyRing(settings.api_key_digests, settings.api_key_file, clock)
    health = settings.vertex_health_route
    return Keys(ring, [*settings.open_routes, *([] if health is None else [health])])


def keys_sent(req: falcon.Request) -> list[bytes]:
    """The keys in a request's headers, as bytes: WSGI shows each byte as one character."""
    scheme, _, bearer = (req.get_header("Authorization") or "").partition(" ")
    found = [bearer] if scheme.lower() == "bearer" else []
    found += [req.get_header(name) or "" for name in HEADERS]
    return [key.strip().encode("latin-1", "replace") for key in found if key.strip()]


def _stamp_of(path: str) -> _Stamp | None:
    """What changes with the file's content; None while there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
