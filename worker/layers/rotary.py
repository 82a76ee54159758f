"""Rotary position embedding: which angle each channel turns by at each position.

One function per kind of scaling, from parameters to inverse frequencies; a table of cosines and
sines, computed in float32, that grows with the longest sequence seen. The angles of a position
depend on the position alone: not on the batch, the chunk, or how long the sequence will become. So
blocks can be shared and recomputed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

_FIRST_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryParameters:
    """As in a checkpoint's configuration; what a kind does not use keeps its default."""

    kind: str
    theta: float
    channels: int
    """Of a head that are rotated: the first ones."""
    max_positions: int
    """Of the model, as configured."""
    factor: float = 1.0
    original_max_positions: int = 0
    """Before an extension of the context: llama3, yarn and longrope."""
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dimensions: float = 0.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    """One per pair of channels: longrope."""

    @property
    def limit(self) -> int | None:
        """Positions from here on have no angles of their own."""
        return self.original_max_positions if self.kind == "longrope" else None

    @property
    def reach(self) -> int:
        """Positions that turn as they are meant."""
        return reach(self.kind, self.max_positions, self.original_max_positions, self.factor)


def reach(kind: str, max_positions: int, original_max_positions: int, factor: float) -> int:
    """Positions that turn as they are meant, of those that a model is configured for.

    With longrope not beyond the original context: there all angles of a pass, also those of other
    sequences, would change with the longest one. With yarn as far as it stretches.
    """
    if kind == "longrope":
        return min(max_positions, original_max_positions)
    if kind == "yarn":
        return max(max_positions, math.floor(original_max_positions * factor))
    return max_positions


class Rotary:
    """Cosines and sines of a model's positions."""

    def __init__(
        self, parameters: RotaryParameters, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._parameters = parameters
        self._device = device
        self._dtype = dtype
        self._table = torch.empty((0, 2, 1, parameters.channels))
        """[positions, 2, 1, channels] in the model's dtype."""
        self.reserve(min(parameters.max_positions, _FIRST_ROWS))

    def at(self, positions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of positions [T] int64 < ``longest``: each [T, 1, channels].

        In the model's dtype; both halves of a head alike, the first half of the sines negated.
        ValueError beyond the parameters' limit.
        """
        if longest > len(self._table):
            self.reserve(max(longest, 2 * len(self._table)))
            if longest > len(self._table):
                raise ValueError(f"{longest} positions are more than {self._parameters.limit}")
        cosines, sines = self._table.index_select(0, positions).unbind(1)
        return cosines, sines

    def reserve(self, positions: int) -> None:
        """Have the table ready for so many positions, or as many as there may be."""
        if self._parameters.limit is not None:
            positions = min(positions, self._parameters.limit)
        angles = _angles(self._parameters, torch.arange(positions))
        amplitude = _amplitude(self._parameters)
        cosines = angles.cos().mul_(amplitude)
        sines = angles.sin().mul_(amplitude)
        halves = torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)
        self._table = torch.stack(halves, dim=1)[:, :, None].to(self._device, self._dtype)


def _angles(parameters: RotaryParameters, positions: torch.Tensor) -> torch.Tensor:
    """[P] int64 to [P, channels / 2] float32."""
    if parameters.kind == "dynamic":
        frequencies = _dynamic(parameters, positions)
    else:
        frequencies = INVERSE_FREQUENCIES[parameters.kind](parameters)
    return positions.float()[:, None] * frequencies


def _exponents(parameters: RotaryParameters) -> torch.Tensor:
    return torch.arange(0, parameters.channels, 2).float() / parameters.channels


def _default(parameters: RotaryParameters) -> torch.Tensor:
    """Su et al. 2021; [channels / 2] float32, as all of these."""
    return 1.0 / parameters.theta ** _exponents(parameters)


def _linear(parameters: RotaryParameters) -> torch.Tensor:
    """Position interpolation (Chen et al. 2023)."""
    return _default(parameters) / parameters.factor


def _llama3(parameters: RotaryParameters) -> torch.Tensor:
    """Llama 3.1: long wavelengths are stretched, short ones kept, a ramp between them."""
    frequencies = _default(parameters)
    wavelengths = 2 * math.pi / frequencies
    low, high = parameters.low_frequency_factor, parameters.high_frequency_factor
    turns = parameters.original_max_positions / wavelengths
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - kept) * frequencies / parameters.factor + kept * frequencies


def _yarn(parameters: RotaryParameters) -> torch.Tensor:
    """YaRN (Peng et al. 2023): interpolates channels by how often they turn in the old context."""
    half = parameters.channels // 2

    def channel(turns: float) -> float:
        reach = parameters.original_max_positions / (turns * 2 * math.pi)
        return half * math.log(reach) / math.log(parameters.theta)

    low, high = channel(parameters.beta_fast), channel(parameters.beta_slow)
    if parameters.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, parameters.channels - 1)
    if low == high:
        high += 0.001
    stretched = ((torch.arange(half).float() - low) / (high - low)).clamp(0.0, 1.0)
    frequencies = _default(parameters)
    return frequencies / parameters.factor * stretched + frequencies * (1 - stretched)


def _longrope(parameters: RotaryParameters) -> torch.Tensor:
    """LongRoPE (Ding et al. 2024) within the original context: a factor for each pair of channels.

    Beyond it all positions, the early ones too, would turn by other factors: angles would depend on
    how long a sequence becomes. So such sequences are not taken (``limit``).
    """
    return _default(parameters) / torch.tensor(parameters.short_factors)


def _dynamic(parameters: RotaryParameters, positions: torch.Tensor) -> torch.Tensor:
    """Dynamic NTK: beyond the model's context the base grows with the length. [P, channels / 2].

    The length at a position is taken to be the one at which it is the last: what generating token
    by token gives. An implementation that reads a whole prompt at once, and scales all of it by the
    prompt's length, differs for prompts beyond ``max_positions``, and for those only.
    """
    channels, factor = parameters.channels, parameters.factor
    lengths = (positions + 1).clamp(min=parameters.max_positions)
    stretch = (factor * lengths / parameters.max_positions) - (factor - 1)
    base = parameters.theta * stretch ** (channels / (channels - 2))
    return 1.0 / base[:, None] ** _exponents(parameters)


INVERSE_FREQUENCIES: dict[str, Callable[[RotaryParameters], torch.Tensor]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
"""Kinds whose frequencies are the same at every position."""

KINDS = (*INVERSE_FREQUENCIES, "dynamic")
"""All kinds that there are."""


def _amplitude(parameters: RotaryParameters) -> float:
    """What cosines and sines are multiplied by: 1, except for yarn and longrope."""
    if parameters.kind not in ("yarn", "longrope"):
        return 1.0
    if parameters.attention_factor is not None:
        return parameters.attention_factor
    factor = parameters.factor
    if parameters.kind == "longrope":
        growth = math.log(max(factor, 1.0)) / math.log(parameters.original_max_positions)
        return math.sqrt(1.0 + growth)
    if parameters.mscale and parameters.mscale_all_dimensions:
        above = _yarn_scale(factor, parameters.mscale)
        return above / _yarn_scale(factor, parameters.mscale_all_dimensions)
    return _yarn_scale(factor, 1.0)


def _yarn_scale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
