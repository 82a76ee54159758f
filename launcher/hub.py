"""The model hub: which files of a repository are wanted, and every way in which that can fail.

Everything goes through plain HTTP and the hub client's cache layout, so models fetched by other
programs are found and the other way round. The token goes to the hub client and nowhere else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import adapters
from common.errors import StartupError
from launcher.checkpoint import an_adapter, choose_weights, no_weights
from launcher.hub_cache import Hub, Snapshot, cached, home_of, remember
from launcher.hub_download import ANSWER_LIMIT_S, download
from launcher.resolve import hub_token

_TEXT_FILES = (".json", ".jinja", ".model", ".tiktoken")
_TEXT_NAMES = ("merges.txt", "vocab.txt")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class Contents:
    """What is wanted of a repository, and which settings name it."""

    config: str
    """The file that makes it one of the kind."""
    wanted: Callable[[str, list[str]], list[str]]
    """Of a repository's name and files, those to be downloaded. Raises StartupError."""
    option: str
    revision: str


def open_hub(cache: str | None, environ: Mapping[str, str], say: Callable[[str], None]) -> Hub:
    """The hub that the environment describes (HF_ENDPOINT, HF_HUB_OFFLINE, the token)."""
    from huggingface_hub import constants

    offline = environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return Hub(
        Path(cache or constants.HF_HUB_CACHE).expanduser().absolute(),
        say,
        environ.get("HF_ENDPOINT", "").rstrip("/") or None,
        hub_token(environ),
        offline,
    )


def is_repository_name(name: str) -> bool:
    """Whether ``name`` can be a repository: ``name`` or ``organisation/name``."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name


def fetch(
    hub: Hub, repository: str, revision: str | None, contents: Contents | None = None
) -> Snapshot:
    """Download what is missing of a repository. Raises StartupError, one sentence per trouble.

    ``contents``: of ``MODEL`` if nothing is said.
    """
    contents = contents or MODEL
    if hub.offline:
        found = cached(hub, repository, revision, contents.config)
        if found is None:
            raise StartupError(
                f"{repository} is not in {hub.cache}, and HF_HUB_OFFLINE forbids downloading it: "
                "unset HF_HUB_OFFLINE once"
            )
        return found
    try:
        info = _ask(hub, repository, revision, contents)
    except _UnreachableError as error:
        found = cached(hub, repository, revision, contents.config)
        if found is None:
            raise StartupError(
                f"{hub.name} cannot be reached to download {repository} ({error}): check the "
                f"network, or give a local directory as {contents.option}"
            ) from None
        hub.say(f"{hub.name} cannot be reached ({error}): using the copy downloaded before")
        return found
    names = [sibling.rfilename for sibling in info.siblings or []]
    wanted = contents.wanted(repository, names)
    snapshot = Snapshot(
        home_of(hub, repository) / "snapshots" / info.sha, info.sha, info.pipeline_tag
    )
    missing = [name for name in wanted if not (snapshot.directory / name).exists()]
    try:
        if missing:
            download(hub, repository, snapshot, missing)
        if contents.config not in names:
            raise _no_model(repository, an_adapter(repository, snapshot.directory))
        remember(hub, repository, revision, info.sha)
    except OSError as error:
        if hasattr(error, "response") or error.errno is None:
            raise _sentence(hub, repository, revision, error, contents) from None
        raise StartupError(
            f"cannot write to {hub.cache}: {error.strerror}; choose another place with "
            "--huggingface-hub-cache"
        ) from None
    except StartupError:
        raise
    except Exception as error:  # the HTTP client's own, which differ between hub versions
        raise _sentence(hub, repository, revision, error, contents) from None
    return snapshot


class _UnreachableError(Exception):
    """Nobody answers, or the answer is no answer."""


def _ask(hub: Hub, repository: str, revision: str | None, contents: Contents) -> Any:
    """The repository's commit and files, with sizes."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint, token=hub.token, library_name="millrace")
    try:
        return api.model_info(
            repository, revision=revision, files_metadata=True, timeout=ANSWER_LIMIT_S
        )
    except Exception as error:  # the HTTP client's own, which differ between hub versions
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is None or status >= 500 or status == 429:
            raise _UnreachableError(_short(error)) from None
        raise _sentence(hub, repository, revision, error, contents) from None


def _sentence(
    hub: Hub, repository: str, revision: str | None, error: Exception, contents: Contents
) -> StartupError:
    """What to tell the user about an answer of the hub."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        tried = " (the one that is set was not let in)" if hub.token else ""
        return StartupError(
            f"{repository} is gated: accept its terms on the hub's page of the model and set "
            f"HF_TOKEN to a token of that account{tried}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return StartupError(
            f"{repository} has no revision {revision}: check {contents.revision} for a typing error"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        hint = "" if hub.token else ", or set HF_TOKEN if it is private"
        return StartupError(
            f"{hub.name} has no repository {repository}, and there is no directory of that name: "
            f"check {contents.option} for a typing error{hint}"
        )
    if status == 401:
        return StartupError(f"{hub.name} does not accept the token in HF_TOKEN: renew it")
    return StartupError(
        f"downloading {repository} from {hub.name} failed ({_short(error)}): start again to go on "
        "where it stopped"
    )


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _wanted(repository: str, names: list[str]) -> list[str]:
    """Configuration, tokenizer and safetensors at the top level. Pickles never.

    Of an adapter, what says of which model it is one.
    """
    if "config.json" not in names:
        if adapters.CONFIG in names:
            return [adapters.CONFIG]
        raise _no_model(repository)
    weights = choose_weights(names)
    if not weights:
        raise no_weights(repository, names)
    texts = [
        name
        for name in names
        if "/" not in name and (name.endswith(_TEXT_FILES) or name in _TEXT_NAMES)
    ]
    return ["config.json", *(name for name in texts if name != "config.json"), *weights]


def _no_model(repository: str, hint: str = "") -> StartupError:
    sentence = f"{repository} is not a model that can be served: it has no config.json"
    return StartupError(f"{sentence}; {hint}" if hint else sentence)


def _wanted_of_adapter(repository: str, names: list[str]) -> list[str]:
    """Configuration and safetensors at the top level, and nothing else."""
    if adapters.CONFIG not in names:
        raise StartupError(f"{repository} is no adapter: it has no {adapters.CONFIG}")
    if adapters.WEIGHTS not in names:
        raise no_weights(repository, names, f"{adapters.WEIGHTS} is not")
    return [adapters.CONFIG, adapters.WEIGHTS]


MODEL = Contents("config.json", _wanted, "--model-id", "--revision")
ADAPTER = Contents(adapters.CONFIG, _wanted_of_adapter, "--lora-adapters", "what stands behind @")
