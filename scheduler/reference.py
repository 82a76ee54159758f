"""``python -m scheduler.reference`` prints ``docs/metrics.md``, made from what is registered.

``make docs`` writes it; a test checks that it is current.
"""

from collections.abc import Iterable

from common.settings import Settings
from scheduler.metrics import Metrics
from scheduler.parts import Parts
from scheduler.processes import LocalProcesses
from scheduler.series import Declared

_PAGE = """\
# Metrics

*This page is made from the scheduler's registry by `make docs`; a test checks that it is current.*

`GET /metrics` on the main port, and on that of `--prometheus-port`, which asks for no key. One
process counts for all: every answer holds the whole server, whichever front end gives it. Counters
begin at zero with the scheduler (`millrace_start_time_seconds`), but for
`millrace_process_restarts_total`, which begins with the server.

A request may be several sequences (`n`, `best_of`, lists of prompts). Series of TGI have TGI's
names, labels and buckets. Guides and exporters write some of them with `_total` or `_seconds`:
those names are served, too, with the same values (column *also*).
"""
_HEAD = ("series", "type", "labels", "meaning", "buckets", "also")
_NOTES = (
    ("`tgi_batch_…{method}`",
     "a step that computed any prompt token is `prefill`, every other one `decode`: prompts are "
     "read beside running sequences"),
    ("`tgi_request_duration`, `…_generated_tokens` and the like",
     "only of sequences that ended well"),
    ("`millrace_time_to_first_token_seconds`",
     "of every sequence that got a token: from the arrival of its request at a front end until the "
     "scheduler knows of the token"),
    ("`millrace_inter_token_seconds`",
     "the time between two steps, once for each sequence that generates in them; and each pause of "
     "a sequence that was preempted, or whose worker was lost or replaced"),
    ("`millrace_waiting_sequences`",
     "at the scrape: the first of the queue waits for this, and all others behind it. "
     "`replica`: none is ready; `seat`: `--max-batch-size`; `blocks`: KV cache; `prefill`: prompts "
     "that are being read; `served_ratio`: `--waiting-served-ratio` or `--max-waiting-tokens`; "
     "`solitude`: a sequence that may have killed workers runs alone"),
    ("`millrace_wasted_tokens_total`",
     "generated after the client had left or its stop string was found; and what a replaced worker "
     "reported too late"),
    ("`millrace_process_restarts_total`",
     "`frontend` is one of the processes that serve, `frontend-parent` their parent; rolling "
     "restarts count"),
)  # fmt: skip
_GATEWAY = """
## Gateway API inference extension

Its endpoint picker asks model servers for these values (proposal 003, model server protocol). The
names are not fixed there; give it ours. Newer pickers take them under `engineConfigs` of their
`EndpointPickerConfig`, older ones as flags.

"""
_GATEWAY_HEAD = ("asked for", "series", "value", "flag")
_GATEWAY_ROWS = (
    ("TotalQueuedRequests", "`tgi_queue_size`", "sequences that wait",
     "`--total-queued-requests-metric`"),
    ("TotalRunningRequests", "`tgi_batch_current_size`", "sequences that run",
     "`--total-running-requests-metric`"),
    ("KVCacheUtilization", "`millrace_kv_cache_usage`", "0 to 1",
     "`--kv-cache-usage-percentage-metric`"),
    ("BlockSize, NumGPUBlocks", "`millrace_cache_config_info`",
     "labels `block_size` and `num_gpu_blocks`", "`--cache-info-metric`"),
    ("LoRA adapters", "`millrace_lora_requests_info`",
     "time of the last change; labels `max_lora`, `running_lora_adapters`, "
     "`waiting_lora_adapters`", "`--lora-info-metric`"),
)  # fmt: skip


def declared() -> list[Declared]:
    """Every family of series, in the order of the text."""
    settings = Settings(model_id="", model_dir="")
    metrics = Metrics(settings)
    Parts(settings, 1, metrics, LocalProcesses(), LocalProcesses(), lambda: 0.0)
    return metrics.catalogue.declared


def page() -> str:
    """The text of ``docs/metrics.md``."""
    found = declared()
    parts = [_PAGE]
    for title, prefix in (("TGI's", "tgi_"), ("Ours", "millrace_")):
        rows = [_row(one) for one in found if one.name.startswith(prefix)]
        parts.append(f"\n## {title}\n\n{_table(_HEAD, rows)}")
    parts.append(f"\n## What they mean exactly\n\n{_table(('series', 'note'), _NOTES)}")
    parts.append(_GATEWAY + _table(_GATEWAY_HEAD, _GATEWAY_ROWS))
    return "".join(parts)


def _row(one: Declared) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in one.labels)
    also = f"`{one.alias}`" if one.alias else ""
    return f"`{one.name}`", one.kind, labels, one.meaning, one.buckets, also


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - the page is the output
