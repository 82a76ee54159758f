"""What the front ends' parent says of dead children, with a scheduler and without."""

import os
from pathlib import Path

import zmq

from common.messages import FrontendGone
from common.sockets import FROM_FRONTEND, open_socket, requests_endpoint
from frontend.obituary import MOST_UNSENT, Obituary

LIMIT_MS = 5000


def test_a_new_scheduler_hears_of_it_and_the_telling_opens_nothing(tmp_path: Path) -> None:
    obituary = Obituary(str(tmp_path))
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for pid in range(2 * MOST_UNSENT):  # nobody listens: it neither blocks nor grows
        obituary.tell(FrontendGone(pid=pid, is_replaced=True))
    assert len(os.listdir("/proc/self/fd")) <= before[0]
    assert len(os.listdir("/proc/self/task")) <= before[1]

    context = zmq.Context()
    scheduler = open_socket(context, zmq.ROUTER)
    scheduler.bind(requests_endpoint(str(tmp_path)))
    assert scheduler.poll(LIMIT_MS)
    heard = FROM_FRONTEND.decode(scheduler.recv_multipart()[-1])
    assert heard == FrontendGone(pid=0, is_replaced=True)
    obituary.close()
    scheduler.close(linger=0)
    context.term()
