"""What the launcher does about API keys: refuses a bad key file, hands on digests only, and says
whether there is a page for browsers, which cannot send a key when they open one.

Keys in clear live in this process alone, which is replaced when the server starts.
"""

import os
from typing import Any

from common.errors import StartupError
from common.keys import KeyFileError, digests, read_key_file
from common.option import AUTO
from common.routes import PLAYGROUND
from launcher.resolve import Resolution


def check_keys(resolution: Resolution) -> None:
    """Raises StartupError for a key file that cannot be used, and for routes opened in vain."""
    path = resolution["api_key_file"]
    if path is not None:
        try:
            read_key_file(path)
        except KeyFileError as error:
            raise StartupError(
                f"{resolution.named('api_key_file')}: {path} {error}; give it one key per line"
            ) from None
    elif resolution["open_routes"] and not resolution["api_key"]:
        raise StartupError(
            f"{resolution.named('open_routes')} is set, but no key is: give --api-key or "
            "--api-key-file too, for without a key every route is open"
        )
    if PLAYGROUND in resolution["open_routes"] and resolution["playground"] is False:
        raise StartupError(
            f"{resolution.named('open_routes')} opens {PLAYGROUND}, which "
            f"{resolution.named('playground')} switches off: leave out one of them"
        )


def derive_playground(resolution: Resolution) -> None:
    """On by itself where everybody may open it; a note where nobody can."""
    keys = bool(resolution["api_key"]) or resolution["api_key_file"] is not None
    opened = PLAYGROUND in resolution["open_routes"]
    if resolution["playground"] == AUTO:
        reason = "API keys are set" if keys else "no API key is set"
        reason = f"--open-routes names {PLAYGROUND}" if opened else reason
        resolution.derive("playground", opened or not keys, reason)
    elif resolution["playground"] and keys and not opened:
        resolution.note(
            f"{PLAYGROUND} needs an API key, which browsers cannot send when they open a page: "
            f"add --open-routes {PLAYGROUND}; the page itself then asks for the key",
            "warning",
        )


def key_settings(resolution: Resolution) -> dict[str, Any]:
    """The fields of ``Settings`` that say which keys are right."""
    path = resolution["api_key_file"]
    return {
        "api_key_digests": digests(resolution["api_key"] or []),
        "api_key_file": None if path is None else os.path.abspath(path),
    }
