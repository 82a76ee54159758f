"""What the launcher does about API keys: refuses a bad key file, and hands on digests only.

Keys in clear live in this process alone, which is replaced when the server starts.
"""

import os
from typing import Any

from common.errors import StartupError
from common.keys import KeyFileError, digests, read_key_file
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


def key_settings(resolution: Resolution) -> dict[str, Any]:
    """The fields of ``Settings`` that say which keys are right."""
    path = resolution["api_key_file"]
    return {
        "api_key_digests": digests(resolution["api_key"] or []),
        "api_key_file": None if path is None else os.path.abspath(path),
    }
