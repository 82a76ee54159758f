"""Finds the model directory: built-in, local, or from the hub; verified, with a fast tokenizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from common.errors import StartupError
from common.options import BUILTIN_MODEL
from common.quantization import Quantization, read_quantization
from launcher.checkpoint import GGUF, path_of, read_config, verify
from launcher.prepare import prepare
from launcher.resolve import Resolution

Say = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """A model on this machine."""

    model_id: str
    directory: Path
    sha: str | None = None
    pipeline_tag: str | None = None


def find(resolution: Resolution, environ: Mapping[str, str], say: Say) -> Model:
    """The model, downloaded if need be, but not verified. Raises StartupError."""
    local = find_local(resolution)
    if local is not None:
        return local
    from launcher.hub import fetch, open_hub

    name: str = resolution["model_id"]
    hub = open_hub(resolution["huggingface_hub_cache"], environ, say)
    snapshot = fetch(hub, name, resolution["revision"])
    return Model(name, snapshot.directory, snapshot.sha, snapshot.pipeline_tag)


def find_downloaded(resolution: Resolution, environ: Mapping[str, str]) -> Model | None:
    """Like ``find``, without the network: None if the model would have to be downloaded."""
    local = find_local(resolution)
    if local is not None:
        return local
    from launcher.hub import open_hub
    from launcher.hub_cache import cached

    name: str = resolution["model_id"]
    hub = open_hub(resolution["huggingface_hub_cache"], environ, lambda text: None)
    snapshot = cached(hub, name, resolution["revision"])
    return Model(name, snapshot.directory, snapshot.sha) if snapshot else None


def find_local(resolution: Resolution) -> Model | None:
    """The built-in model or a local directory; None for a repository of the hub."""
    name: str = resolution["model_id"]
    if name == BUILTIN_MODEL:
        return Model(name, builtin_directory(), pipeline_tag="text-generation")
    named = resolution.named("model_id")
    path = path_of(name, named)
    if path.is_dir():
        return Model(name, path.resolve())
    if path.exists():
        hint = GGUF if path.suffix == ".gguf" else "name the directory of the model"
        raise StartupError(f"{named}: {name} is a file: {hint}")
    if "://" in name:
        raise StartupError(
            f"{named}: {name} is an address: give the name of the repository alone (org/name)"
        )
    if name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1:
        raise StartupError(f"{named}: there is no directory {name}")
    from launcher.hub import is_repository_name

    if not is_repository_name(name):
        raise StartupError(
            f"{named}: {name!r} is neither a directory nor the name of a repository (org/name)"
        )
    return None


def weights_of(model: Model, resolution: Resolution) -> Quantization:
    """How its weights are quantized, or will be. Raises StartupError where that cannot be.

    A directory without a configuration is none of this function's business.
    """
    if not (model.directory / "config.json").is_file():
        return Quantization()
    return read_quantization(resolution["quantize"], read_config(model.directory), model.directory)


def builtin_directory() -> Path:
    """Where the model that comes with the code is installed."""
    return Path(str(resources.files("common"))) / "models" / "builtin"


def make_ready(model: Model, places: Callable[[], list[Path]], say: Say) -> Path:
    """Verify the model; the directory to serve it from. Raises StartupError.

    A model without tokenizer.json gets one in the first of ``places`` that can be written to.
    """
    checkpoint = verify(model.directory)
    if checkpoint.has_fast_tokenizer:
        return model.directory
    say(f"{model.model_id} has no tokenizer.json: converting its tokenizer once")
    trouble = ""
    for place in places():
        try:
            return prepare(model.directory, place)
        except OSError as error:
            trouble = f"{place}: {error.strerror}"
    raise StartupError(f"there is no place for the converted tokenizer ({trouble})")
