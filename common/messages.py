"""Every message between Millrace's processes. Nothing else crosses a process boundary.

Messages are msgspec structs: tagged, array-like msgpack. Fields with defaults may be appended; any
other change raises ``PROTOCOL_VERSION``. One process chooses each id and the
others repeat it:

* a *front-end number* is a random 31-bit integer, new for every front-end process;
* a *sequence id* is ``front-end number << 32 | counter``, chosen by the front end;
* an *epoch* is one scheduler's start, an *incarnation* one worker's start (random 63 bits);
* an *attempt* counts how often the front end has handed a sequence in. Tokens of an earlier attempt
  are stale and dropped, so a lost worker that wakes up again cannot mix two continuations.

Who says what to whom::

    front end -> scheduler   Hello Alive Submit Cancel Missing Delivered Tally Scrape Resume
                             FrontendGone
    scheduler -> front end   Status Accepted Rejected Replay Ended Recover Scraped Resumed
    operator -> scheduler    Retire (on the front ends' socket), answered by Retired
    scheduler -> worker      Dispatch Reset
    worker    -> scheduler   Ready StepReport StepReports Heartbeat
    worker    -> front end   Tokens (PUB/SUB, lossy: every token carries its index)
    follower  -> leader      Join
    leader    -> follower    Form Measure MakeCache Forward Logits Record Step Leave
    listener  -> scheduler   Tally

A replica may be cut into shards, one worker process each: a group. Its shard 0 is the leader, which
is all that scheduler and front ends know of it; the others, the followers, only compute.
"""

from typing import Literal

import msgspec

from common.sampling import SamplingParameters

PROTOCOL_VERSION = 12
BLOCK_TOKENS = 16
"""Tokens of keys and values in one KV block."""

WorkerFinish = Literal["", "length", "eos_token"]
"""What a worker can find by itself; the empty string while the sequence goes on."""


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a message."""


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A whole message; the class name is its tag."""


def frontend_of(sequence_id: int) -> int:
    """The number of the front end that owns a sequence."""
    return sequence_id >> 32


def topic_of(frontend: int) -> bytes:
    """The PUB/SUB topic of a front end's tokens; fixed width, so that none is another's prefix."""
    return frontend.to_bytes(4, "big")


# --- parts ------------------------------------------------------------------------------------


class SequenceSpec(_Record, frozen=True):
    """What is to be generated: constant for the whole life of a sequence."""

    id: int
    prompt_ids: list[int]
    """At least one token id."""
    max_new_tokens: int
    """The sequence ends with ``length`` after this many tokens; >= 1."""
    sampling: SamplingParameters
    stop_token_ids: list[int] = []
    """Any of these ends the sequence with ``eos_token``; the token itself is emitted."""
    prefill_logprobs: bool = False
    """Report the log-probability of every prompt token. Such a prompt is never read from cache."""
    grammar: str = ""
    """What the output must match: an llguidance grammar as its ``LLMatcher`` reads it (JSON text),
    checked by the front end. Empty: anything. Its state is rebuilt by replaying generated ids."""
    request: str = ""
    traceparent: str = ""
    """For logs and traces: the id of the request that it belongs to, and W3C's trace context."""
    adapter: str = ""
    """Digest of the LoRA adapter whose weights are added to the model's (``common/adapters.py``);
    empty: none. Keys and values are shared among sequences of the same one only."""
    cache_salt: str = ""
    """Likewise: cached prefixes are shared among sequences of the same salt only."""


class Started(_Record, frozen=True):
    """Facts known when a sequence's first new token is there; sent with it."""

    queue_s: float
    """Seconds between the scheduler's acceptance and the first dispatch."""
    cached_tokens: int = 0
    """Prompt tokens whose keys and values came from the prefix cache."""
    prefill_logprobs: list[float] = []
    """Log-probability of prompt tokens 1 … n-1 given those before; empty unless asked for."""


class SequenceTokens(_Record, frozen=True):
    """New tokens of one sequence. Built once, sent to the front end and to the scheduler."""

    id: int
    attempt: int
    index: int
    """Position of ``ids[0]`` among the sequence's generated tokens, from 0."""
    ids: list[int] = []
    logprobs: list[float] = []
    """One per id: log-softmax of the processed logits."""
    tops: list[list[tuple[int, float]]] = []
    """With ``top_n_tokens``: one list per id of (token id, log-probability), best first."""
    finish: WorkerFinish = ""
    """Why the sequence ended with the last of these ids."""
    started: Started | None = None


class Keep(_Record, frozen=True):
    """Says that a sequence belongs to a stream which its client may take up again.

    The scheduler keeps the stream for a while after its client, or the client's front end, is gone
    (``scheduler/streams.py``). Whoever hands a sequence in under a known ticket takes its run over.
    """

    ticket: str
    """Names the stream; random, 32 hexadecimal digits. Only its client knows it."""
    owner: str
    """Who may take it up: has to be repeated in Resume. Only front ends know what it means."""
    run: int
    """Which of the stream's sequences this is, from 0."""
    runs: int
    """How many there are; >= 1."""
    memo: bytes = b""
    """What a front end needs to write the stream's events anew; with run 0. Opaque to others."""
    logprobs: list[float] = []
    """One for each of the ``generated_ids`` that are handed in with this."""
    tops: list[list[tuple[int, float]]] = []
    """As in SequenceTokens, for the same ids."""
    started: Started | None = None
    """Once it is known."""


class KeptRun(_Record, frozen=True):
    """One sequence of a stream that is taken up again."""

    spec: SequenceSpec
    tokens: SequenceTokens
    """All tokens so far, from index 0."""


class Progress(_Record, frozen=True):
    """What one step did for one sequence."""

    tokens: SequenceTokens
    """Without ids while the prompt is still being read."""
    computed_tokens: int
    """Tokens of the sequence (prompt and output) whose keys and values are written."""
    error: str = ""
    """The sequence failed and was dropped by the worker: one sentence, without prompt text."""


class NextTokens(_Record, frozen=True):
    """Sequences of which a step has nothing to say but their next token; columns of equal length.

    PERF: once per token; of 32 sequences they are read in 13 us, as SequenceTokens in 37, and a
    token of a stream needs no object of its own.
    """

    ids: list[int]
    attempts: list[int]
    indices: list[int]
    tokens: list[int]
    logprobs: list[float]

    def __post_init__(self) -> None:
        """A frame with columns of several lengths does not decode."""
        columns = (self.attempts, self.indices, self.tokens, self.logprobs)
        if any(len(column) != len(self.ids) for column in columns):
            raise ValueError("columns of different lengths")


class Steady(_Record, frozen=True):
    """Sequences of which a step has nothing to say but their next tokens, one each as a rule.

    Columns of equal length, unless there are ``counts``.

    PERF: of 256 sequences they are read in 25 us, as Progress in 110, and make no work for the
    collector of cycles.
    """

    ids: list[int]
    attempts: list[int]
    indices: list[int]
    tokens: list[int]
    logprobs: list[float]
    computed_tokens: list[int]
    counts: list[int] = []
    """How many of ``tokens`` and ``logprobs`` each sequence has; empty: all have one."""

    def __post_init__(self) -> None:
        """A frame with columns of other lengths does not decode."""
        counts, size = self.counts, len(self.ids)
        tokens = sum(counts) if counts else size
        columns = (self.attempts, self.indices, self.computed_tokens, counts or self.ids)
        if any(len(column) != size for column in columns) or min(counts, default=1) < 1:
            raise ValueError("columns of different lengths")
        if not len(self.tokens) == len(self.logprobs) == tokens:
            raise ValueError("columns of different lengths")


class StepTiming(_Record, frozen=True):
    """What a step cost; seconds."""

    prefill_tokens: int
    decode_tokens: int
    """Sequences that decoded: each got one token, and one more for each accepted draft."""
    forward_s: float
    sample_s: float
    publish_s: float
    total_s: float
    gap_s: float = 0.0
    """Since the step before was published; 0 if the worker was idle in between."""
    piece_tokens: int = 0
    """So much of a new prompt would be read in a step beside others; 0: as much as fits."""
    drafted_tokens: int = 0
    """With ``--speculate``: guessed, and computed to see whether they are right."""
    accepted_tokens: int = 0
    """Those of them that were."""


class NewSequence(_Record, frozen=True):
    """A sequence handed to a worker: sent whole once, by difference afterwards."""

    spec: SequenceSpec
    attempt: int
    generated_ids: list[int]
    """Tokens generated before (preempted or recovered sequence); the next has index ``len()``."""
    blocks: list[int]
    """Leased KV blocks in order; block i holds tokens 16 i … 16 i + 15."""
    cached_tokens: int = 0
    """Known tokens at the start that those blocks already hold; a multiple of 16, never all."""
    queue_s: float = 0.0  # to be repeated in Started


class Grant(_Record, frozen=True):
    """More blocks for a running sequence, appended to its lease."""

    id: int
    blocks: list[int]


class ReplicaStatus(_Record, frozen=True):
    """One replica as the scheduler sees it."""

    replica: int
    ready: bool
    running: int = 0
    """Sequences dispatched to it."""
    progress_age_s: float = 0.0
    """Seconds since its last sign of progress."""
    kv_tokens: int = 0
    """Tokens of keys and values that it has room for; 0 until it is ready."""
    dtype: str = ""
    device: str = ""


# --- front end -> scheduler -------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """First words of a front end on a new connection or to a new scheduler; answered by Status."""

    version: int
    frontend: int
    pid: int


class Alive(_Message, frozen=True):
    """Heartbeat, once a second. Unknown front ends are answered with Status (say Hello again)."""

    frontend: int


class Submit(_Message, frozen=True):
    """A validated sequence; answered by Accepted or Rejected."""

    spec: SequenceSpec
    attempt: int = 0
    generated_ids: list[int] = []
    """On resubmission: what the client has received so far. Never rejected for overload then."""
    priority: int = 0
    """Lower is sooner."""
    timeout_s: float = 0.0
    """The sequence must have ended within so many seconds from now; 0 is no deadline."""
    queue_timeout_s: float = 0.0
    """Its first dispatch must come within so many seconds of its acceptance; 0 is no bound."""
    age_s: float = 0.0
    """Since its request arrived at the front end, when it is handed in for the first time."""
    keep: Keep | None = None
    """If the client may take its stream up again."""


class Cancel(_Message, frozen=True):
    """Stop computing; the front end is no longer interested in tokens of this sequence."""

    id: int
    reason: Literal["stop_sequence", "client_gone", "sibling_failed", "deadline"]


class Missing(_Message, frozen=True):
    """A gap was seen: answered by Replay from ``index`` on (or Ended, if the id is unknown).

    By Recover if the sequence has gone on in a later attempt, its front end being taken for dead.
    """

    id: int
    index: int
    attempt: int = 0


class Delivered(_Message, frozen=True):
    """A sequence's end reached the front end: the record can be forgotten. Seconds."""

    id: int
    success: bool
    generated_tokens: int = 0
    total_s: float = 0.0
    validation_s: float = 0.0
    queue_s: float = 0.0
    inference_s: float = 0.0


class Tally(_Message, frozen=True):
    """Counts that only others can see."""

    requests: int = 0
    """Added to ``tgi_request_count``."""
    failures: dict[str, int] = {}
    """Added to ``tgi_request_failure`` by ``err``."""
    restarts: dict[str, int] = {}  # how often each process began again, so far; from the listener


class Scrape(_Message, frozen=True):
    """Asks for the metrics text; answered by Scraped with the same ``tag_id``."""

    tag_id: int


class Resume(_Message, frozen=True):
    """A client wants its stream back; answered by Resumed with the same ``tag_id``.

    Changes nothing: the stream is taken over by Submit.
    """

    tag_id: int
    ticket: str
    owner: str


class FrontendGone(_Message, frozen=True):
    """Said by the front ends' parent process: this front end is dead, cancel what it owned."""

    pid: int
    is_replaced: bool = False  # a new process takes its place


class Retire(_Message, frozen=True):
    """An operator is about to replace a worker: have what it runs go on elsewhere.

    Answered by Retired at each stage.
    """

    tag_id: int
    replica: int


# --- scheduler -> front end -------------------------------------------------------------------


class Status(_Message, frozen=True):
    """The scheduler's heartbeat, once a second and when a replica's readiness changes."""

    version: int
    epoch: int
    replicas: list[ReplicaStatus] = []
    waiting: int = 0
    running: int = 0
    accepting: bool = True
    """False while draining."""


class Accepted(_Message, frozen=True):
    """The sequence is queued."""

    id: int
    attempt: int


class Rejected(_Message, frozen=True):
    """The sequence was not taken."""

    id: int
    attempt: int
    reason: Literal["overloaded", "draining", "invalid"]
    retry_after_s: float = 1.0
    message: str = ""


class Replay(_Message, frozen=True):
    """Tokens over the reliable socket: an answer to Missing, or instead of an unseen PUB/SUB."""

    items: list[SequenceTokens]


class Ended(_Message, frozen=True):
    """A sequence ended without a token saying so."""

    id: int
    attempt: int
    reason: Literal["failed", "expired", "overloaded", "unknown"]
    """``overloaded``: it waited for its first dispatch longer than it was to."""
    message: str = ""
    retry_after_s: float = 1.0
    """When it makes sense to come back; of ``overloaded``."""


class Recover(_Message, frozen=True):
    """A worker is lost: resubmit these sequences with what their clients have received."""

    ids: list[int]


class Scraped(_Message, frozen=True):
    """The metrics in Prometheus text format."""

    tag_id: int
    text: bytes


class Resumed(_Message, frozen=True):
    """A kept stream as it stands; without runs if there is none of that ticket and owner."""

    tag_id: int
    memo: bytes = b""
    runs: list[KeptRun] = []


class Retired(_Message, frozen=True):
    """How far the replacement of a worker is, with the ``tag_id`` of Retire."""

    tag_id: int
    stage: Literal["empty", "ready", "refused"]
    """``empty``: nothing runs there, it can be stopped. ``ready``: a new one is in its place."""
    message: str = ""
    """Why it was refused."""


# --- scheduler -> worker ----------------------------------------------------------------------


class Dispatch(_Message, frozen=True):
    """Changes to what a worker runs. Applied in the order release, add, grant."""

    epoch: int
    number: int
    """Counts up by one per epoch and worker."""
    step_tokens: int
    """Bound on the tokens of one step: running sequences first, the rest for prefill chunks."""
    release: list[int] = []
    """Stop these and confirm in StepReport.released (unknown ids are confirmed too)."""
    add: list[NewSequence] = []
    grants: list[Grant] = []
    max_stall_s: float = 0.0
    """So long may a step be in which some sequences decode and prompts are read; 0 is no bound."""


class Reset(_Message, frozen=True):
    """Drop everything and say Ready to this epoch: the scheduler does not know this worker."""

    epoch: int


# --- worker -> scheduler ----------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """The model is loaded and warmed up; nothing runs."""

    version: int
    replica: int
    incarnation: int
    pid: int
    blocks: int
    """KV blocks, numbered 0 … blocks - 1. Block 0 is never leased: padding writes there."""
    epoch: int = 0
    """Of the Reset that this answers; 0 at start."""
    dtype: str = ""
    """What the model computes in, such as ``float32``."""
    device: str = ""
    """``cpu`` or ``cuda``."""
    longest_step_s: float = 0.0
    """What the largest possible step took in the warm-up, in seconds; 0 if nobody measured it."""
    prefix_caching: bool = True
    """False for models that keep a sequence's state themselves: NewSequence.cached_tokens is 0."""

    followers: list[int] = []
    """Process ids of the other shards. The group is one: it ends if one of its processes does."""


class StepReport(_Message, frozen=True):
    """One step has retired (or releases were confirmed without a step)."""

    epoch: int
    incarnation: int
    dispatch: int
    """Number of the last Dispatch applied before the step."""
    step: int
    items: list[Progress] = []
    released: list[int] = []
    undelivered: list[int] = []
    """Front ends whose subscription this worker has not seen: the scheduler replays to them the
    tokens of ``items``."""
    timing: StepTiming | None = None
    steady: Steady | None = None
    """Sequences that are not among the ``items``; None if somebody is ``undelivered``."""


class StepReports(_Message, frozen=True):
    """Reports that were kept back and the one that could not be, in the order of their steps."""

    epoch: int
    incarnation: int
    reports: list[StepReport]


class Heartbeat(_Message, frozen=True):
    """Sent once a second by a worker that has nothing to report."""

    epoch: int
    incarnation: int
    step: int


# --- worker -> front end ----------------------------------------------------------------------


class Tokens(_Message, frozen=True):
    """All new tokens of one step for one front end; published under ``topic_of(frontend)``."""

    incarnation: int
    step: int
    items: list[SequenceTokens]
    following: NextTokens | None = None
    """Of sequences that are not among the ``items``."""


# --- follower -> leader -----------------------------------------------------------------------


class Join(_Message, frozen=True):
    """A shard waits for its group; repeated until Form has come."""

    shard: int
    pid: int


# --- leader -> follower -----------------------------------------------------------------------


class Form(_Message, frozen=True):
    """Form the group for collectives, or form it anew after a step that has failed somewhere.

    What was sent before it belongs to the old group.
    """

    store: str
    """Path of a file through which the shards find each other; no two attempts share one."""
    pid: int
    """Of the leader."""


class Measure(_Message, frozen=True):
    """All shards agree on the least of what each of them has left for keys and values."""

    activation_bytes: int
    """What the largest step needs."""


class MakeCache(_Message, frozen=True):
    """Make a KV cache, in the place of an earlier one."""

    blocks: int


class Forward(_Message, frozen=True):
    """One forward pass. T tokens, S sequences, R wanted rows: see ``worker/inputs.py``."""

    sequences: int
    width: int
    """Blocks in a row of the block tables."""
    rows: int
    decoding: int
    numbers: bytes
    """int32 in the byte order of this machine: token ids [T], positions [T], slots [T], block
    tables [S · width], lengths [S], query lengths [S], wanted rows [R]."""
    adapters: bytes = b""
    """int32 [S]: the number of each sequence's adapter among those of the settings, or -1; empty
    where none has one."""


class Logits(_Message, frozen=True):
    """Logits of some hidden rows of the last Forward."""

    first: int
    count: int


class Record(_Message, frozen=True):
    """Record the steps in which all sequences decode, for all sizes of the settings."""

    slots: int
    """Of the state that each shard keeps on its device; as in Step."""
    width: int
    changes: bytes


class Step(_Message, frozen=True):
    """One step of a group whose devices are ahead of the host: see ``worker/ahead/order.py``.

    Numbers are int32, as in Forward.
    """

    slots: int
    width: int
    changes: bytes
    """[2, n]: places in the state, and what stands there from now on."""
    chosen: int
    scored: int
    size: int
    """Rows that are computed where all decode; 0: it is ``forward``."""
    lengths: bytes
    """[R] where all decode."""
    adapted: bool
    """Whether some have adapters, where all decode."""
    drafts: int
    """The last so many of ``chosen`` come after drafts."""
    forward: Forward | None
    """Without the last tokens of sequences that decode."""
    chosen_slots: bytes
    """[n] of ``forward``."""


class Leave(_Message, frozen=True):
    """The group ends in peace."""


FromFrontend = (
    Hello
    | Alive
    | Submit
    | Cancel
    | Missing
    | Delivered
    | Tally
    | Scrape
    | Resume
    | FrontendGone
    | Retire
)
ToOperator = Retired
ToFrontend = Status | Accepted | Rejected | Replay | Ended | Recover | Scraped | Resumed
ToWorker = Dispatch | Reset
FromWorker = Ready | StepReport | StepReports | Heartbeat
ToFollower = Form | Measure | MakeCache | Forward | Logits | Record | Step | Leave
