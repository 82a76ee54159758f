"""What the tests of kept streams share: a house that keeps them, and what front ends say."""

from typing import Any

from common.messages import Cancel, Delivered, Keep, KeptRun, Resume, Resumed, Submit
from tests.scheduler.harness import FRONTEND, House, spec, started

TICKET, OWNER, MEMO = "ab" * 16, "owner", b"memo"
GRACE_S = 3.0
"""Less than a front end or a worker may be silent."""
OTHER = FRONTEND + 1


def keep(run: int = 0, runs: int = 1, ticket: str = TICKET, **more: Any) -> Keep:
    return Keep(ticket, OWNER, run, runs, MEMO if run == 0 else b"", **more)


def house(**changes: Any) -> House:
    return started(frontends=2, **{"sse_resume_grace": GRACE_S, **changes})


def resume(made: House, frontend: int = OTHER, owner: str = OWNER, ticket: str = TICKET) -> Resumed:
    made.from_frontend(Resume(1, ticket, owner), frontend)
    made.turn()
    return made.said(Resumed, frontend)[-1]


def leave(made: House, sequence: int) -> None:
    """What a front end says when a client has hung up."""
    made.from_frontend(Cancel(sequence, "client_gone"))
    made.from_frontend(Delivered(sequence, success=False))
    made.turn()


def take_up(made: House, counter: int, kept: KeptRun, **more: Any) -> int:
    """What a front end says to go on with a run."""
    own = spec(counter, kept.spec.prompt_ids, kept.spec.max_new_tokens, frontend=OTHER)
    wanted = keep(**{"logprobs": kept.tokens.logprobs, **more})
    made.from_frontend(Submit(own, generated_ids=kept.tokens.ids, keep=wanted), OTHER)
    made.turn()
    return own.id
