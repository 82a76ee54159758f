"""A class's weights from a checkpoint's safetensors files, all of them and nothing else.

Runs in the worker, once. transformers reads them, because it knows how each class renames, splits
and fuses what is stored; what it reports as missing, left over or of another shape is an error that
names the tensors. Neither pickles nor code beside the weights are loaded.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from common.errors import StartupError
from worker.models.through_transformers.calls import ERRORS

_NAMED = 5
_NOT_WEIGHTS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".position_ids")
"""Ends of keys that old checkpoints contain and that the configuration implies."""


def load_weights(
    kind: Any, config: PreTrainedConfig, directory: Path, dtype: torch.dtype, device: torch.device
) -> Any:
    """A model of the class ``kind`` on ``device``, in evaluation mode. Raises StartupError."""
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, report = kind.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
        )
    except ImportError as error:
        first = str(error).strip().splitlines()[0]
        raise StartupError(f"{kind.__name__} needs a package that is not here: {first}") from None
    except (OSError, SafetensorError) as error:
        raise StartupError(f"the weights in {directory} cannot be read: {error}") from None
    except ERRORS as error:
        raise StartupError(
            f"transformers cannot make {kind.__name__} from {directory}: {error}"
        ) from None
    _check(report)
    return model.to(device).eval().requires_grad_(False)


def _check(report: dict[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise StartupError(f"the checkpoint lacks {_list(missing)}")
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        key, stored, wanted = mismatched[0]
        raise StartupError(
            f"{key} has the shape {list(stored)}, config.json asks for {list(wanted)}"
        )
    left_over = sorted(k for k in report["unexpected_keys"] if not k.endswith(_NOT_WEIGHTS))
    if left_over:
        raise StartupError(f"the model has no place for {_list(left_over)} of the checkpoint")


def _list(keys: list[str]) -> str:
    named = ", ".join(keys[:_NAMED])
    more = len(keys) - _NAMED
    return f"{named} and {more} more tensors" if more > 0 else f"the tensor(s) {named}"
