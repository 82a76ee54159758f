"""The files beside a model's weights that say something about text; read in front ends, at start.

Every trouble with a file becomes a ``StartupError`` that names the file and says what to do.
Knows nothing of what the files are used for.
"""

import json
from pathlib import Path
from typing import Any

from common.errors import StartupError

SPECIAL_TOKEN_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""Names under which a tokenizer's special tokens are known, to templates too."""


def read_text(path: Path) -> str | None:
    """The file's text; None where there is no such file. Raises ``StartupError``."""
    if path.exists() and not path.is_file():
        raise StartupError(f"{path} is not a file: download the model again.")
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path} cannot be read ({error}): check the model directory.") from None


def read_object(path: Path) -> dict[str, Any] | None:
    """The file's JSON object; None where there is no such file. Raises ``StartupError``."""
    text = read_text(path)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StartupError(
            f"{path} is not valid JSON ({error}): download the model again or repair the file."
        ) from None
    if not isinstance(value, dict):
        raise StartupError(f"{path} must hold a JSON object: repair the file.")
    return value


def read_tokenizer_config(
    model_dir: str | Path, tokenizer_config_path: str | Path | None
) -> dict[str, Any]:
    """The given tokenizer configuration, else the model's own, else an empty one."""
    if tokenizer_config_path is None:
        return read_object(Path(model_dir) / "tokenizer_config.json") or {}
    config = read_object(Path(tokenizer_config_path))
    if config is None:
        raise StartupError(
            f"The tokenizer configuration {tokenizer_config_path} does not exist:"
            " correct --tokenizer-config-path or leave it out."
        )
    return config


def special_tokens(model_dir: str | Path, config: dict[str, Any]) -> dict[str, str]:
    """Text of the named special tokens: the tokenizer configuration's, else the older map's."""
    older = read_object(Path(model_dir) / "special_tokens_map.json") or {}
    found = {}
    for name in SPECIAL_TOKEN_NAMES:
        content = token_content(config[name] if name in config else older.get(name))
        if content is not None:
            found[name] = content
    return found


def token_content(value: object) -> str | None:
    """A token is written as a string or as an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
