"""The roster: like devices in groups, whoever has room is found, and nobody walks the whole fleet for it."""

from random import Random

from orchestrator.core.fleet import Load, Session
from orchestrator.core.roster import MOST_GROUPS, Roster
from protocol.ids import Fence
from protocol.profile import DeviceProfile, LinkProfile, WorkerProfile
from protocol.resource import Resources

ONE = {"cpu": 1.0}
LINK = LinkProfile()


def session(worker, speed=1.0, slots=2, link=LINK):
    device = DeviceProfile("cpu", "core", slots, speed=speed)
    return Session(
        worker, worker, f"w{worker}", "boot", WorkerProfile(slots, Resources(cpu=slots), (device,), link=link), 0.0
    )


def roster(sessions, asking=frozenset()):
    return Roster(((one, "cpu", ONE) for one in sessions), asking, 1)


def fill(one, number, needs=ONE):
    one.take((1, number, 1), Load(needs, Fence(1, number), "x", "cpu", 0.0, False))


def test_devices_that_are_alike_are_one_group_and_those_that_differ_are_not():
    assert roster([session(1), session(2)]).alike
    unlike = roster([session(1), session(2, speed=2.0), session(3, link=LinkProfile(1e6))])
    assert (len(unlike.groups), unlike.exact, unlike.alike) == (3, True, False)
    assert not roster([session(1), session(2)], frozenset({2})).alike


def test_a_thousand_unlike_devices_are_few_groups_of_similar_speed():
    luck = Random(7)
    found = roster([session(n, luck.uniform(0.5, 8.0), link=LinkProfile(luck.uniform(1e6, 1e9))) for n in range(1000)])
    assert len(found.groups) <= MOST_GROUPS
    assert not found.exact
    assert sum(len(group.berths) for group in found.groups) == 1000


def test_free_slots_come_before_a_place_in_a_queue_and_the_less_busy_before_the_busier():
    busy, idle = session(1), session(2)
    fill(busy, 1)
    group = roster([busy, idle]).groups[0]
    assert group.next(4).session is idle
    for number in range(2, 5):
        fill(idle if number > 2 else busy, number)
    fill(idle, 5)
    assert not group.free.berths or group.next(4).session in (busy, idle)
    assert group.next(0) is None
    assert group.next(1).session is busy  # the other one has somebody waiting already


def test_who_has_room_is_always_found_and_who_has_none_never():
    luck = Random(3)
    sessions = [session(n, slots=luck.randint(1, 3)) for n in range(12)]
    found, held, number = roster(sessions), [], 0
    for _ in range(3000):
        window = luck.choice([0, 0, 1, 2])
        room = {one.worker for one in sessions if one.has_room(ONE, window)}
        berth = found.next(window)
        assert (berth is not None) == bool(room)
        assert berth is None or berth.session.worker in room
        if berth is not None and luck.random() < 0.7:
            number += 1
            fill(berth.session, number)
            held.append((berth.session, (1, number, 1)))
        elif held:
            one, key = held.pop(luck.randrange(len(held)))
            match luck.randrange(4):
                case 0:
                    one.keep_for(None if one.kept_for else (1, 1))
                    held.append((one, key))
                case 1:
                    one.yield_cpu(key)
                    one.reclaim_cpu(key)
                    held.append((one, key))
                case _:
                    one.drop(key)


def test_skipped_workers_stay_on_the_shelf():
    found = roster([session(1), session(2)])
    assert {found.groups[0].next(0, lambda one: one.session.worker == 1).session.worker for _ in range(4)} == {2}
    assert found.groups[0].next(0, lambda one: True) is None
    assert len(found.groups[0].free.berths) == 2


def test_the_soonest_of_full_devices_is_the_one_that_is_expected_to_be_free_first():
    sessions = [session(n, slots=1) for n in range(3)]
    group = roster(sessions).groups[0]
    for number, one in enumerate(sessions):
        fill(one, number)
    assert group.next(0) is None
    left = {0: 5.0, 1: 2.0, 2: 9.0}
    assert [(b.session.worker, s) for b, s in [group.soonest(10.0, lambda one: left[one.worker])]] == [(1, 2.0)]
    assert group.soonest(11.0, lambda one: 0.0)[1] == 1.0  # what was expected once is not asked again
    late = group.soonest(13.0, lambda one: 0.0)  # 1 s late, so for 1 s more
    assert (late[0].session.worker, late[1]) == (1, 1.0)
    late = group.soonest(14.5, lambda one: 0.0)  # as late as this the other one is sooner
    assert (late[0].session.worker, late[1]) == (0, 0.5)
    sessions[0].drop((1, 0, 1))
    assert group.soonest(14.5, lambda one: 0.0)[0].session.worker == 1
    assert group.next(0).session is sessions[0]
