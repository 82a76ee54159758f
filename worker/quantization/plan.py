"""What the loader does about quantization, decided once: nothing, read codes, or make them.

Runs in the worker. Puts together what the setting and the checkpoint amount to, the formats, and
the kernels that are told to encode.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from common.errors import StartupError
from common.quantization import Quantization
from worker.devices import computes_natively
from worker.filling import Stored
from worker.kernels.select import Kernels
from worker.layers.layer import Layer, Slot
from worker.layers.linear import matrices
from worker.quantization.at_load import AtLoad
from worker.quantization.find import NOTHING, Found, find_codes, weights_bytes
from worker.quantization.format import Format
from worker.quantization.registry import AT_LOAD, FORMATS

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """At most one of the two."""

    stored: Format | None = None
    at_load: AtLoad | None = None

    @property
    def description(self) -> str:
        """For people; empty where weights are as they are."""
        chosen = self.stored or self.at_load
        return chosen.description if chosen else ""

    def computed_in(self, kind: torch.dtype, device: torch.device) -> torch.dtype:
        """What a checkpoint whose other weights are ``kind`` is computed in, unless told otherwise.

        On CPUs not in float16, which quantizers leave behind: kernels for codes are in C, and take
        bfloat16 and float32.
        """
        if not self.description or device.type != "cpu" or kind != torch.float16:
            return kind
        return torch.bfloat16 if computes_natively(torch.bfloat16) else torch.float32

    def check_foreign(self, architecture: str) -> None:
        """Raise StartupError for a model without a declaration that needs a plan."""
        if self.description:
            raise StartupError(
                f"{architecture} runs through transformers, where quantized weights"
                f" ({self.description}) are not supported: use the unquantized model, without"
                " --quantize"
            )

    def encoding(self, kernels: Kernels) -> Kernels:
        """The same kernels, told what becomes of weights as they are loaded."""
        if self.at_load is None:
            return kernels
        encode = self.at_load.encode
        output = encode if self.at_load.output_layer else None
        return replace(kernels, encode=encode, encode_output=output)

    def find(
        self,
        slots: Mapping[str, Slot],
        stored: Mapping[str, Stored],
        name: Callable[[str], str],
    ) -> Found:
        """As ``find_codes``."""
        return find_codes(slots, stored, self.stored, name) if self.stored else NOTHING

    def check_coded(self, found: Found) -> None:
        """Raise StartupError where config.json speaks of codes and all weights are plain."""
        if self.stored and not found.coded and not self.stored.may_be_plain:
            raise StartupError(
                f"config.json says that weights are {self.description}, and those of the"
                " checkpoint are plain: take quantization_config out of it, or use the checkpoint"
                " that it belongs to"
            )

    def bytes_of(self, slots: Iterable[Slot], found: Found, dtype: torch.dtype) -> int | None:
        """What all weights will take, about; None where nothing is quantized."""
        if not self.description:
            return None
        return weights_bytes(slots, found, self.at_load, dtype)

    def report(self, model: Layer) -> None:
        """One line about what has been loaded, where it is codes."""
        if not self.description:
            return
        every = list(matrices(model))
        coded = [matrix for matrix in every if matrix.is_coded]
        _log.info(
            "weights are %s: %d of %d matrices, %d MiB; the others take %d MiB",
            self.description,
            len(coded),
            len(every),
            sum(matrix.weight_bytes for matrix in coded) >> 20,
            sum(matrix.weight_bytes for matrix in every if not matrix.is_coded) >> 20,
        )


def plan_weights(quantization: Quantization) -> WeightPlan:
    """For what the setting and the checkpoint amount to. Raises StartupError."""
    if quantization.stored is not None:
        return WeightPlan(stored=FORMATS[quantization.stored](quantization.entries))
    if quantization.at_load is not None:
        return WeightPlan(at_load=AT_LOAD[quantization.at_load])
    return WeightPlan()
