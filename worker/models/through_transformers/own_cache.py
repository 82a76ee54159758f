"""Tier "own cache": a class runs as transformers' ``generate`` runs it, a sequence at a time.

Runs in the worker. For classes with recurrent state, with position schemes of their own, or that
take no attention function: correct but slow. A sequence's cache is found by its number in the
step's inputs and lives until ``release``; nothing is shared between sequences, so such a model
asks for no prefix cache (``shares_prefixes``).

What a class does with a piece of a prompt is not always what it does with the whole, so a prompt is
kept until one of its rows is wanted and then read at once; after that, tokens are read one by one.
A sequence that starts again (preempted, or its step is repeated) is read again from its ids.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig

from common.messages import BLOCK_TOKENS
from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.layers.layer import Slot
from worker.models.model import Model
from worker.models.through_transformers.configuration import ForeignConfiguration, weights_of

_GENERATION = GenerationConfig(use_cache=True)  # type: ignore[no-untyped-call]
"""Asks for the kind of cache that a class has by default, whatever its checkpoint prefers."""


State = list[torch.Tensor | None]


@dataclass(slots=True, eq=False)
class _Held:
    """One sequence: its tokens, and the cache over the first ``computed`` of them."""

    ids: list[int] = field(default_factory=list)
    computed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    """What the class takes beside the tokens, its cache among it; as ``generate`` hands it on."""
    state: State | None = None
    """What the class keeps in its modules; None: as in the beginning."""


class OwnCacheModel(Model):
    """One class of transformers with the cache that it brings."""

    configuration: ForeignConfiguration
    shares_prefixes = False
    reads_whole = True
    rolls_back = False

    def __init__(self, configuration: ForeignConfiguration, model: Any, ids: list[int]) -> None:
        """``ids`` are some tokens to measure a sequence's cache with."""
        super().__init__(configuration)
        self._model = model
        self._device = model.device
        self._parameters = frozenset(inspect.signature(model.forward).parameters)
        self._held: dict[int, _Held] = {}
        self._places: list[tuple[torch.nn.Module, str]] = []
        self._initial: State = []
        self._find_state(ids)
        self._token_bytes, self._sequence_bytes = self._measure(ids)

    @property
    def block_bytes(self) -> int:
        """What 16 more tokens of a sequence take."""
        return max(1, self._token_bytes * BLOCK_TOKENS)

    @property
    def sequence_bytes(self) -> int:
        """What a sequence takes whatever its length."""
        return self._sequence_bytes

    def slots(self, path: str = "") -> Iterator[Slot]:
        """As ``Layer.slots``."""
        return weights_of(self._model, path)

    @property
    def held(self) -> int:
        """Sequences with a cache."""
        return len(self._held)

    def release(self, sequence: int) -> None:
        """As ``Model.release``: drop the cache."""
        self._held.pop(sequence, None)

    def forward(self, inputs: StepInputs, cache: KVCache) -> torch.Tensor:
        """As ``Model.forward``; what it returns are logits already, [R, vocabulary] float32."""
        tokens = inputs.token_ids.tolist()
        wanted = set(inputs.logit_rows.tolist())
        rows: dict[int, torch.Tensor] = {}
        first = 0
        for sequence, length, count in zip(
            inputs.sequences_host, inputs.lengths_host, inputs.query_lengths_host, strict=True
        ):
            held = self._continued(sequence, length - count)
            held.ids += tokens[first : first + count]
            own = [row for row in range(first, first + count) if row in wanted]
            if own:
                # Positions of the wanted rows in the sequence.
                places = [length - count + row - first for row in own]
                rows |= dict(zip(own, self._advance(held, places), strict=True))
            first += count
        if not rows:
            return torch.empty((0, self.configuration.vocab_size), device=self._device)
        return torch.stack([rows[row] for row in inputs.logit_rows.tolist()])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """As ``Model.logits``."""
        return hidden.clone()

    def _continued(self, sequence: int, start: int) -> _Held:
        """The sequence at position ``start``; one that goes back is read again when wanted."""
        held = self._held.get(sequence)
        if held is None or start == 0:
            held = self._held[sequence] = _Held()
        if start > len(held.ids):
            raise RuntimeError(f"sequence row {sequence} goes on at {start}, after a gap")
        if start < len(held.ids):
            held = self._held[sequence] = _Held(held.ids[:start])
        return held

    def _advance(self, held: _Held, places: list[int]) -> list[torch.Tensor]:
        """Read all tokens; logits [vocabulary] at these positions, the last of them at the end."""
        found: dict[int, torch.Tensor] = {}
        try:
            while held.computed < len(held.ids):
                end = len(held.ids) if held.computed == 0 else held.computed + 1
                own = [place for place in places if held.computed <= place < end]
                logits = self._read(held, end, min(own, default=end - 1))
                found |= {place: logits[place - end].float() for place in own}
        except BaseException:
            held.computed, held.arguments, held.state = 0, {}, None  # it may hold a part of it
            raise
        return [found[place] for place in places]

    def _read(self, held: _Held, end: int, first_kept: int) -> torch.Tensor:
        """Tokens up to ``end``; logits of at least those from ``first_kept`` on, the last last."""
        ids = torch.tensor([held.ids[:end]], device=self._device)
        beginning = held.computed == 0
        if beginning:
            held.arguments = self._beginning(ids)
        if "logits_to_keep" in self._parameters:
            held.arguments["logits_to_keep"] = end - first_kept
        inputs = self._model.prepare_inputs_for_generation(
            ids,
            next_sequence_length=None if beginning else 1,
            is_first_iteration=beginning,
            **held.arguments,
        )
        self._put_state(self._initial if held.state is None else held.state)
        outputs = self._model(**inputs, return_dict=True)
        held.state = self._take_state()
        held.arguments = self._model._update_model_kwargs_for_generation(
            outputs, held.arguments, is_encoder_decoder=False
        )
        held.computed = end
        logits: torch.Tensor = outputs.logits[0]
        return logits

    def _beginning(self, ids: torch.Tensor) -> dict[str, Any]:
        """The arguments that ``generate`` begins with."""
        arguments: dict[str, Any] = {"use_cache": True}
        if "attention_mask" in self._parameters:
            arguments["attention_mask"] = None
        if "position_ids" in self._parameters:
            arguments["position_ids"] = self._model._prepare_position_ids_for_generation(
                ids, arguments
            )
        self._model._prepare_cache_for_generation(
            _GENERATION, arguments, None, 1, self.configuration.max_position_embeddings
        )
        return arguments

    # --- state in modules -----------------------------------------------------------------------

    def _find_state(self, ids: list[int]) -> None:
        """Some classes keep a sequence's state as attributes of modules: those that a pass sets."""
        before = _tensors_in_modules(self._model)
        self._advance(_Held(ids), [len(ids) - 1])
        after = _tensors_in_modules(self._model)
        for place, value in after.items():
            if value is not before.get(place):
                self._places.append(place)
                self._initial.append(before.get(place))
        self._put_state(self._initial)

    def _take_state(self) -> State:
        return [getattr(module, name) for module, name in self._places]

    def _put_state(self, state: State) -> None:
        for (module, name), value in zip(self._places, state, strict=True):
            setattr(module, name, value)

    def _measure(self, ids: list[int]) -> tuple[int, int]:
        """Bytes of a cache: for each token, and whatever the length."""
        sizes = []
        for count in (len(ids) // 2, len(ids)):
            held = _Held(ids[:count])
            self._advance(held, [count - 1])
            held.arguments.pop("position_ids", None)
            sizes.append(_bytes_of([held.arguments, held.state], set()))
        token_bytes = -(-max(0, sizes[1] - sizes[0]) // (len(ids) - len(ids) // 2))
        return token_bytes, max(0, sizes[1] - token_bytes * len(ids))


def _tensors_in_modules(model: torch.nn.Module) -> dict[tuple[torch.nn.Module, str], Any]:
    """Plain attributes of modules that are tensors: neither parameters nor buffers."""
    return {
        (module, name): value
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }


def _bytes_of(part: Any, seen: set[int]) -> int:
    """Of all tensors in a cache, whatever its class."""
    if id(part) in seen:
        return 0
    seen.add(id(part))
    if isinstance(part, torch.Tensor):
        return part.nbytes
    if isinstance(part, dict):
        return sum(_bytes_of(item, seen) for item in part.values())
    if isinstance(part, list | tuple):
        return sum(_bytes_of(item, seen) for item in part)
    if type(part).__module__.startswith("transformers.") and hasattr(part, "__dict__"):
        return _bytes_of(vars(part), seen)
    return 0
