"""Workers that are replaced on purpose: emptied, swapped, used again; nobody is suspected."""

from common.messages import Cancel, Retire, Retired, Status
from scheduler.requests import State
from scheduler.retirement import STOP_LIMIT_S
from tests.scheduler.harness import House, started

OPERATOR = 77


def retire(house: House, replica: int = 0) -> None:
    house.from_frontend(Retire(5, replica), OPERATOR)
    house.turn()


def stages(house: House) -> list[str]:
    return [told.stage for told in house.said(Retired, OPERATOR)]


def test_what_runs_moves_to_the_other_replica() -> None:
    house = started(replicas=2)
    sequences = [house.submit(i) for i in range(1, 5)]
    here = [s for s in sequences if house.record(s).replica == 0]
    assert here
    retire(house)
    assert stages(house) == []
    assert {house.record(s).state for s in here} == {State.PREEMPTING}
    house.forget()
    house.report(released=here)
    house.turn()
    assert stages(house) == ["empty"]
    assert all(house.record(s).replica == 1 for s in sequences)
    house.ready(incarnation=99)
    house.turn()
    assert stages(house) == ["empty", "ready"]
    assert [house.record(s).deaths for s in sequences] == [0] * 4
    assert house.metric("millrace_replicas_lost_total") == 0
    assert house.metric("millrace_preemptions_total") == 0
    house.check()
    house.turn(after_s=STOP_LIMIT_S + 1)
    assert stages(house) == ["empty", "ready"]


def test_what_is_on_its_way_out_goes_on_leaving() -> None:
    house = started(waiting_served_ratio=0.0)
    gone, going = house.submit(1), house.submit(2)
    house.from_frontend(Cancel(gone, "client_gone"))
    retire(house)
    retire(house)
    assert [house.record(s).state for s in (gone, going)] == [State.CANCELLING, State.PREEMPTING]
    house.from_frontend(Cancel(going, "client_gone"))
    house.turn()
    assert [s for d in house.dispatches() for s in d.release] == [gone, going]
    house.report(released=[gone, going])
    house.turn()
    assert stages(house) == ["refused", "empty"]
    assert house.ended() == {"client_gone": 2}


def test_a_single_worker() -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 3)
    house.forget()
    retire(house)
    house.turn(after_s=1.0)
    assert not house.said(Status)[-1].replicas[0].ready
    house.report(released=[sequence])
    house.turn()
    assert stages(house) == ["empty"]
    assert house.record(sequence).state is State.QUEUED, "it waits for the new one"
    other = house.submit(2)
    house.processes.dead = [1]
    house.turn(after_s=1.0)
    assert not house.said(Status)[-1].replicas[0].ready
    for _ in range(int(STOP_LIMIT_S) + 1):  # the new one takes its time
        house.hello()
        house.turn(after_s=1.0)
    assert stages(house) == ["empty"]
    house.ready(incarnation=99)
    house.turn()
    assert stages(house) == ["empty", "ready"]
    assert house.record(sequence).state is State.DISPATCHED
    assert house.record(sequence).generated == [7] * 3
    assert house.record(other).state is State.DISPATCHED


def test_nobody_stops_it() -> None:
    house = started()
    sequence = house.submit(1)
    house.forget()
    retire(house)
    house.report(released=[sequence])
    for _ in range(int(STOP_LIMIT_S) + 1):
        house.from_worker_beat()
        house.hello()
        house.turn(after_s=1.0)
    assert stages(house) == ["empty", "refused"]
    assert house.record(sequence).state is State.DISPATCHED


def test_what_is_refused() -> None:
    house = started(replicas=2)
    retire(house, 7)
    (told,) = house.said(Retired, OPERATOR)
    assert (told.stage, told.message) == ("refused", "there is no replica 7, only 0, 1")
    house.submit(1)
    house.submit(2)
    house.forget()
    retire(house)
    retire(house)
    assert stages(house) == ["refused"]


def test_a_worker_that_starts_is_empty_at_once() -> None:
    house = House()
    house.hello()
    retire(house)
    house.turn()
    assert stages(house) == ["empty"]
