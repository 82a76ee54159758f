"""The metrics: everything that is counted, and what each number comes from.

Owned by the scheduler alone; front ends and workers report, so that there is one true count. TGI's
names, labels and buckets are API. Knows no sockets and no records; gauges that are read from their
owners are in ``gauges.py``.

A step that computed any prompt token counts as ``method="prefill"``, every other one as
``"decode"``. Of a step, ``inference`` is all of it, ``forward`` the model, ``decode`` the choice of
tokens, ``filter`` their publishing.
"""

import re

from prometheus_client import Counter

from common.errors import ErrorKind
from common.messages import Delivered, StepTiming, Tally
from common.settings import Settings
from scheduler.exposition import render
from scheduler.series import Buckets, Catalogue, Labelled, WorstOf

DURATION_BUCKETS = tuple(0.0001 * 1.5**k for k in range(1, 36))
SKIPPED_BUCKETS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
BATCH_BUCKETS = tuple(2**k for k in range(11))
METHODS = ("prefill", "decode")
MOST_S = 1e7
"""Longer durations are not believed; nor are those that are no numbers."""
CHUNK_TOKENS = 1024
"""TGI schedules so many new tokens of a request at most, and observes that number."""
FAILURES = frozenset({kind.metric for kind in ErrorKind} | {"dropped", "internal"})
"""Values of ``err``; anything else is counted as ``other``. ``internal``: a mistake of ours."""
_PROCESS = re.compile(r"[a-z][a-z-]{0,30}(?:-\d{1,4})?")
_DURATIONS = "0.0001 × 1.5^k seconds, k = 1 … 35"


def hundredths(limit: int) -> tuple[float, ...]:
    """TGI's buckets for token counts: 1 % to 100 % of a limit."""
    return tuple(limit * k / 100 for k in range(1, 101))


class Metrics:
    """Everything that is counted. Plain counters are public, the rest has verbs."""

    def __init__(self, settings: Settings) -> None:
        self.catalogue = Catalogue()
        self.registry = self.catalogue.registry
        self._restarts: dict[str, int] = {}
        self._generated = 0
        self.stalls = WorstOf()
        """Pauses between two tokens of a sequence."""
        self._requests(settings)
        self._batches()
        self._own()

    def render(self) -> bytes:
        """The Prometheus text."""
        return render(self.registry, self.catalogue.bare, self.catalogue.aliases)

    # --- verbs --------------------------------------------------------------------------------

    def accepted(self, input_tokens: int, max_new_tokens: int) -> None:
        """A sequence was accepted for the first time (Submit)."""
        self._input_length.add(input_tokens)
        self._max_new_tokens.add(min(max_new_tokens, CHUNK_TOKENS))

    def first_token(self, seconds: float) -> None:
        """The first token of a sequence is there, so long after its request came."""
        self._first_token.add(seconds)

    def pause(self, seconds: float, now: float) -> None:
        """A sequence goes on that had stood still for want of blocks or of its worker."""
        self._inter_token.add(seconds)
        self.stalls.see(seconds, now)

    def restarted(self, process: str, is_replaced: bool = True) -> None:
        """A process has been replaced."""
        if is_replaced:
            self._restarts[process] = self._restarts.get(process, 0) + 1

    def tally(self, tally: Tally) -> None:
        """What front ends, and the listener of supervisord, have counted."""
        if tally.requests > 0:
            self._request_count.inc(tally.requests)
        for err, count in tally.failures.items():
            self.failed(err, count)
        for process, total in tally.restarts.items():
            if _PROCESS.fullmatch(process):
                self._restarts[process] = total

    def failed(self, err: str, count: int = 1) -> None:
        """Requests failed; unknown reasons become ``other``."""
        if count > 0:
            self._request_failure.labels(err if err in FAILURES else "other").inc(count)

    def delivered(self, delivered: Delivered) -> None:
        """A sequence's end has reached its client; only successes are observed."""
        durations = (
            delivered.total_s, delivered.validation_s, delivered.queue_s, delivered.inference_s,
        )  # fmt: skip
        if not all(0.0 <= duration <= MOST_S for duration in durations):
            self.bad_frames.labels("requests").inc()
            return
        if not delivered.success:
            return
        self._request_success.inc()
        self._duration.add(delivered.total_s)
        self._generated += delivered.generated_tokens
        self._validation.add(delivered.validation_s)
        self._queue.add(delivered.queue_s)
        self._inference.add(delivered.inference_s)
        self._per_token.add(delivered.inference_s / max(delivered.generated_tokens, 1))
        self._generated_tokens.add(delivered.generated_tokens)

    def step(self, timing: StepTiming, now: float, *, failed: bool) -> None:
        """A worker's step has retired; ``failed`` if it lost a sequence.

        All that decoded in it have waited for their token since the step before.
        """
        method = METHODS[0] if timing.prefill_tokens else METHODS[1]
        self._step_count[method].inc()
        (self._step_failure if failed else self._step_success)[method].inc()
        self._step_inference[method].add(timing.total_s)
        self._step_forward[method].add(timing.forward_s)
        self._step_decode[method].add(timing.sample_s)
        self._step_filter[method].add(timing.publish_s)
        if timing.decode_tokens:
            self.stalls.see(max(timing.gap_s, timing.total_s), now)
            if timing.gap_s > 0.0:
                self._inter_token.add(timing.gap_s, timing.decode_tokens)
        if timing.drafted_tokens:
            self._drafted.inc(timing.drafted_tokens)
            self._accepted.inc(timing.accepted_tokens)
            self._inter_token.add(0.0, timing.accepted_tokens)  # they came with the one before

    def admitted(self, sequences: int, reason: str | None, took_s: float) -> None:
        """Sequences left the queue together; with a reason if they joined running ones."""
        self._next_size.add(sequences)
        if reason is not None:
            self._concat.labels(reason).inc()
            self._concat_duration.add(took_s)

    # --- the registry -------------------------------------------------------------------------

    def _seconds(self, name: str, meaning: str) -> Buckets:
        return self.catalogue.histogram(name, meaning, DURATION_BUCKETS, _DURATIONS)

    def _requests(self, settings: Settings) -> None:
        inputs = hundredths(settings.max_input_tokens)
        totals = hundredths(settings.max_total_tokens)
        counter, histogram = self.catalogue.counter, self.catalogue.histogram
        of_input = "k × max_input_tokens / 100, k = 1 … 100"
        of_total = "k × max_total_tokens / 100, k = 1 … 100"
        self._request_count = counter(
            "tgi_request_count",
            "Sequences handed in, and one more for each call of an OpenAI route, as TGI counts",
        )
        self._request_success = counter("tgi_request_success", "Sequences that ended well")
        self._request_failure = counter("tgi_request_failure", "Failed requests", "err")
        for err in sorted(FAILURES):
            self._request_failure.labels(err)
        self._duration = self._seconds("tgi_request_duration", "Seconds from arrival to end")
        self._validation = self._seconds(
            "tgi_request_validation_duration", "Seconds from arrival to submission"
        )
        self._queue = self._seconds("tgi_request_queue_duration", "Seconds in the queue")
        self._inference = self._seconds(
            "tgi_request_inference_duration", "Seconds from the queue to the end"
        )
        self._per_token = self._seconds(
            "tgi_request_mean_time_per_token_duration", "Inference seconds per generated token"
        )
        self._generated_tokens = histogram(
            "tgi_request_generated_tokens", "Generated tokens per sequence", totals, of_total
        )
        self.catalogue.counted(
            "tgi_request_generated_tokens_total",
            "Generated tokens of all sequences that ended well",
            (),
            lambda: {(): self._generated},
        )
        self._input_length = histogram(
            "tgi_request_input_length", "Prompt tokens per sequence", inputs, of_input
        )
        self._max_new_tokens = histogram(
            "tgi_request_max_new_tokens",
            f"Tokens that a sequence may generate, at most {CHUNK_TOKENS}",
            totals,
            of_total,
        )
        self.skipped = self.catalogue.histogram(
            "tgi_request_skipped_tokens",
            "Tokens beyond the first that a sequence got in one step: its accepted drafts",
            SKIPPED_BUCKETS,
            "0, 1, 2, 3, 4, 6, 8, 12, 16",
        )

    def _by_method(self, metric: Counter) -> dict[str, Counter]:
        return {method: metric.labels(method) for method in METHODS}

    def _duration_by_method(
        self, name: str, meaning: str, methods: tuple[str, ...] = METHODS
    ) -> dict[str, Buckets]:
        return self.catalogue.histograms(
            name, meaning, DURATION_BUCKETS, _DURATIONS, "method", methods
        )

    def _batches(self) -> None:
        counter = self.catalogue.counter
        self._step_count = self._by_method(
            counter("tgi_batch_inference_count", "Steps of workers", "method")
        )
        self._step_success = self._by_method(
            counter("tgi_batch_inference_success", "Steps without a failed sequence", "method")
        )
        self._step_failure = self._by_method(
            counter("tgi_batch_inference_failure", "Steps with a failed sequence", "method")
        )
        durations = self._duration_by_method
        self._step_inference = durations("tgi_batch_inference_duration", "Seconds per step")
        self._step_forward = durations("tgi_batch_forward_duration", "Seconds in the model")
        self._step_decode = durations("tgi_batch_decode_duration", "Seconds choosing tokens")
        self._step_filter = durations("tgi_batch_filter_duration", "Seconds publishing tokens")
        self._concat_duration = durations(
            "tgi_batch_concat_duration",
            "Seconds of admitting sequences to running ones",
            ("decode",),
        )["decode"]
        self._concat = counter(
            "tgi_batch_concat", "How often sequences joined running ones", "reason"
        )
        for reason in ("backpressure", "wait_exceeded"):
            self._concat.labels(reason)
        self._next_size = self.catalogue.histogram(
            "tgi_batch_next_size",
            "Sequences that left the queue together",
            BATCH_BUCKETS,
            "powers of two up to 1024",
        )

    def _own(self) -> None:
        counter = self.catalogue.counter
        self._first_token = self._seconds(
            "millrace_time_to_first_token_seconds",
            "Seconds from a request's arrival to a sequence's first token",
        )
        self._inter_token = self.catalogue.histogram(
            "millrace_inter_token_seconds",
            "Seconds between two tokens of a sequence, pauses included",
            DURATION_BUCKETS,
            _DURATIONS,
        )
        self.preemptions = counter("millrace_preemptions", "Sequences preempted for blocks")
        self.recovered = counter("millrace_recovered_sequences", "Sequences of lost replicas")
        self.replicas_lost = counter("millrace_replicas_lost", "Replicas lost")
        self.replicas_hung = counter("millrace_replicas_hung", "Replicas killed because they hung")
        self.poisonous = counter(
            "millrace_poisonous_sequences", "Sequences given up because they end workers"
        )
        self.prompt_tokens = counter("millrace_prompt_tokens", "Known tokens of admissions")
        self.cached_tokens = counter(
            "millrace_prefix_hit_tokens", "Known tokens of admissions found in the prefix cache"
        )
        self.wasted_tokens = counter(
            "millrace_wasted_tokens", "Tokens computed for nobody: the client had gone, or had all"
        )
        self._drafted = counter("millrace_drafted_tokens", "Tokens guessed and verified")
        self._accepted = counter(
            "millrace_accepted_tokens", "Tokens guessed right: each came with the one before it"
        )
        self.resumed = counter(
            "millrace_resumed_sequences", "Sequences whose clients took up their streams again"
        )
        self.ended = counter("millrace_sequences_ended", "Ends of sequences", "reason")
        self.bad_frames = counter("millrace_bad_frames", "Frames that did not decode", "socket")
        self.unreachable = counter("millrace_unreachable", "Messages without a receiver", "peer")
        self.broken_leases = counter(
            "millrace_broken_leases", "Checks that found free + cached + leased != total"
        )
        self.catalogue.counted(
            "millrace_process_restarts_total",
            "How often a process began again, by process",
            ("process",),
            self._restarted,
        )
        for name in ("requests", "dispatch"):
            self.bad_frames.labels(name)
        for peer in ("frontend", "worker"):
            self.unreachable.labels(peer)

    def _restarted(self) -> Labelled:
        return {(process,): total for process, total in list(self._restarts.items())}
