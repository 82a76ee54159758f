"""Every class that transformers can generate text with: made tiny, loaded, compared, written down.

Run by ``make models-test``: several minutes. Writes docs/supported_models.md if all went well.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from tests.breadth.report import PAGE, page
from tests.worker.through_transformers.outcomes import NO_DECODERS, Outcome, outcome_of

_PROCESSES = 2


def _try(model_type: str) -> Outcome | str:
    """In a process of the pool: what became of it, or what went wrong."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        try:
            return outcome_of(model_type, Path(directory))
        except (Exception, pytest.fail.Exception) as error:
            first = str(error).strip().splitlines() or [""]
            return f"{model_type}: {type(error).__name__}: {first[0][:300]}"


@pytest.mark.timeout(1800)
def test_every_class():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        results = list(pool.map(_try, CAUSAL))
    wrong = [result for result in results if isinstance(result, str)]
    outcomes = [result for result in results if isinstance(result, Outcome)]
    decoders = [name for name in CAUSAL if name not in NO_DECODERS]
    passed = [outcome for outcome in outcomes if outcome.tier != "refused"]
    assert not wrong, "\n".join(wrong)
    assert len(passed) >= 0.9 * len(decoders)
    PAGE.write_text(page(outcomes))
