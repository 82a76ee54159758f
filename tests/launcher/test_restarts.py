"""How often processes began again, as the scheduler is told."""

from pathlib import Path

import zmq

from common.messages import Tally
from common.sockets import FROM_FRONTEND, open_socket, requests_endpoint
from launcher.restarts import Restarts, to_scheduler

STARTING, RUNNING, EXITED = (f"PROCESS_STATE_{s}" for s in ("STARTING", "RUNNING", "EXITED"))


def test_starts_after_the_first_are_counted() -> None:
    sent: list[Tally] = []
    restarts = Restarts(sent.append)
    for event, name in (
        (STARTING, "scheduler"), (STARTING, "worker_0"), (RUNNING, "scheduler"),
        (STARTING, "frontend"), (STARTING, "announce"), (EXITED, "worker_0"),
        (STARTING, "worker_0"), (STARTING, "worker_0"), (STARTING, "frontend"),
    ):  # fmt: skip
        restarts.see(event, {"processname": name})
    assert sent[-1].restarts == {"scheduler": 0, "worker-0": 2, "frontend-parent": 1}
    assert len(sent) == 7
    assert sent[0].restarts == {"scheduler": 0}


def test_a_scheduler_that_comes_later_is_told(tmp_path: Path) -> None:
    send = to_scheduler(str(tmp_path))
    for number in range(300):
        send(Tally(restarts={"worker-0": number}))
    context = zmq.Context()
    router = open_socket(context, zmq.ROUTER)
    try:
        router.bind(requests_endpoint(str(tmp_path)))
        assert router.poll(10_000)
        _, frame = router.recv_multipart()
        told = FROM_FRONTEND.decode(frame)
        assert isinstance(told, Tally)
        assert told.restarts == {"worker-0": 0}
    finally:
        router.close()
        context.term()
