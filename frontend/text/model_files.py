"""The files beside a model's weights that say something about text; read in front ends, at start.

Every trouble with a file becomes a ``StartupError`` that names the file and says what to do.
Knows nothing of what the files are used for.
"""

import json
from pathlib import Path
from typing import Any

from common.errors import StartupError


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
    """The given tokenizer configuration, else the model's own, else an empty one.

    Older models keep their special tokens in a file of their own. As in transformers it overrides
    the model's configuration, unless that lists all added tokens; it never overrides a given one.
    """
    given = tokenizer_config_path is not None
    path = Path(tokenizer_config_path or Path(model_dir) / "tokenizer_config.json")
    config = read_object(path)
    if config is None and given:
        raise StartupError(
            f"The tokenizer configuration {path} does not exist:"
            " correct --tokenizer-config-path or leave it out."
        )
    config = config or {}
    if "added_tokens_decoder" in config:
        return config
    older = read_object(Path(model_dir) / "special_tokens_map.json") or {}
    return older | config if given else config | older


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Text of the named special tokens: the usual ones, and those only this model has."""
    named = {name: value for name, value in config.items() if name.endswith("_token")}
    for group in ("extra_special_tokens", "model_specific_special_tokens"):
        tokens = config.get(group)
        if isinstance(tokens, dict):
            named |= tokens
    contents = {name: token_content(value) for name, value in named.items()}
    return {name: content for name, content in contents.items() if content is not None}


def token_content(value: object) -> str | None:
    """A token is written as a string or as an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
