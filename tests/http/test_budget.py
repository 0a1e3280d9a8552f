"""Who gets a place of a listener, and who has to go for it: counted by hand, and any sequence against the rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemeta.http.budget import Budget, Place, neighbours, places

# 34 places, of which a sixteenth, 2, are the reserve: 32 for all, and of these 16 for one address if others want some.
MOST, ALL, HALF, EACH, OVERDUE_S = 34, 32, 16, 4, 10.0


class House:
    """A budget, and who was cut, in order."""

    def __init__(self, most=MOST):
        self.budget, self.cut, self.now = Budget(most, EACH, OVERDUE_S), [], 0.0

    def enter(self, address="a", key=None, began=False):
        place = Place(address)
        place.cut = lambda: self.cut.append(place)
        self.budget.enter(place, self.now)
        if began or key is not None:
            self.budget.began(place, self.now)
        if key is not None:
            assert self.budget.claim(place, key)
        return place

    def devices(self, count):
        return [self.enter("router", key=number) for number in range(count)]


def test_how_many_places_a_process_has():
    assert places(20_000, most=512, files=1) == 512
    assert places(1024, most=512, files=1) == (1024 - 128) // 2 == 448  # a socket and a file each
    assert places(1024, most=512, files=2) == (1024 - 128) // 3 == 298
    assert places(130, most=512, files=1) == 1
    assert places(128, most=512, files=1) == 0


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_stands_for_a_peers_addresses(address, peer):
    assert neighbours(address) == peer


def test_the_first_that_says_nothing_makes_room():
    house = House()
    first, *others = [house.enter() for _ in range(ALL)]
    house.budget.began(first, 0.0)
    assert not house.cut
    for number in range(ALL - 1):
        assert not house.enter().spare
        assert house.cut == others[: number + 1]
    house.budget.ended(first)  # now it says nothing either, and came last
    house.enter()
    assert house.cut[-1] not in (first, *others)


def test_a_request_under_way_is_not_cut_before_it_is_overdue():
    house = House()
    busy = [house.enter(began=True) for _ in range(ALL)]
    house.now = OVERDUE_S - 0.1
    assert house.enter().spare
    assert house.cut == []
    house.now = OVERDUE_S
    assert not house.enter().spare
    assert house.cut == [busy[0]]


def test_what_an_address_has_beyond_its_half_it_gives_up_to_others_even_in_the_middle_of_a_request():
    house = House()
    flood = [house.enter("flood", began=True) for _ in range(ALL)]
    others = [house.enter(f"other-{number}", began=True) for number in range(ALL - HALF)]
    assert not any(place.spare for place in others)
    assert house.cut == flood[: ALL - HALF]
    assert house.enter("one more").spare  # the rest of the flood is within its half, and not overdue
    house.now = OVERDUE_S
    assert not house.enter("one more").spare
    assert house.cut == flood[: ALL - HALF + 1]


def test_who_has_its_half_gets_no_more_from_others():
    house = House()
    flood = [house.enter("flood") for _ in range(HALF)]
    others = [house.enter(f"other-{number}") for number in range(ALL - HALF)]
    more = house.enter("flood")
    assert house.cut == flood[:1]
    assert all(place.held for place in (more, *others))
    for place in (more, *flood[1:]):
        house.budget.began(place, 0.0)
    assert house.enter("flood").spare


def test_the_address_that_has_most_makes_room():
    house = House()
    flood = [house.enter("flood") for _ in range(HALF)]
    few = [house.enter("few") for _ in range(HALF - 1)]
    house.enter("one")
    assert not house.enter("another").spare
    assert house.cut == flood[:1]
    assert all(place.held for place in few)


def test_who_says_whose_it_is_leaves_room_for_others_of_its_address():
    house = House()
    assert not any(place.spare for place in house.devices(ALL))
    assert house.cut == []


def test_of_a_session_the_newest_connections_stay():
    house = House()
    first, *others = [house.enter(key="cam") for _ in range(EACH)]
    assert house.cut == []
    fifth = house.enter(key="cam")
    assert house.cut == [first]
    assert house.budget.claim(fifth, "mic")  # a proxy asks for another one
    house.enter(key="cam")
    assert house.cut == [first]
    assert not house.budget.claim(first, "cam")
    house.budget.leave(first)
    house.enter(key="cam")
    assert house.cut == [first, others[0]]


def test_devices_give_way_to_no_stranger_and_when_idle_to_other_devices():
    house = House()
    *devices, last = house.devices(ALL)
    assert house.enter("stranger").spare
    house.budget.ended(devices[5])
    house.budget.ended(devices[3])
    assert not house.enter("router", key="new").spare
    assert house.cut == [devices[5]]
    house.budget.ended(devices[5])  # its answer ended as it was cut
    house.budget.leave(last)
    stranger = house.enter("stranger")
    assert not stranger.spare
    house.enter("another stranger")
    assert house.cut == [devices[5], stranger]
    assert not house.enter("router", key="newer").spare
    assert devices[3].held
    house.enter("router", key="newest")
    assert not devices[3].held
    assert house.enter("router").spare


def test_in_the_reserve_only_the_newest_and_who_is_known():
    house = House()
    devices = house.devices(ALL)
    first, second = house.enter("x"), house.enter("y")
    assert first.spare
    assert second.spare
    assert not house.budget.claim(second, None)
    assert not house.budget.claim(second, "unknown")
    third = house.enter("z")
    assert house.cut == [first]
    assert house.budget.claim(third, 7)  # the device's earlier connection broke, and nobody has noticed
    assert not third.spare
    assert house.cut == [first, devices[7]]
    assert house.enter("z").spare
    assert house.cut == [first, devices[7]]


def test_in_the_reserve_a_device_gets_a_strangers_place_or_an_idle_ones():
    house = House()
    strangers = [house.enter("flood", began=True) for _ in range(2)]
    devices = [house.enter("router", key=number) for number in range(ALL - 2)]
    for number in range(2):
        newcomer = house.enter("router")
        assert newcomer.spare
        assert not house.budget.claim(newcomer, None)
        assert house.budget.claim(newcomer, f"new-{number}")
        assert house.cut == strangers[: number + 1]
    last = house.enter("router")
    assert last.spare
    assert not house.budget.claim(last, "newest")
    house.budget.ended(devices[9])
    assert house.budget.claim(last, "newest")
    assert house.cut == [*strangers, devices[9]]


acts = st.tuples(
    st.sampled_from(["enter", "enter", "began", "ended", "claim", "claim", "leave", "wait"]),
    st.integers(0, 60),
    st.sampled_from("abc"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(acts, max_size=80))
def test_whatever_happens_the_bounds_hold_and_nobody_is_cut_in_vain(sequence):
    house, here = House(most=9), []  # 1 is the reserve, 8 for all, 4 for an address if others want some
    for act, which, letter in sequence:
        before = len(house.cut)
        one = here[which % len(here)] if here else None
        if act == "wait":
            house.now += which
        elif act == "enter":
            here.append(house.enter(letter))
        elif one is None:
            continue
        elif act == "began":
            house.budget.began(one, house.now)
        elif act == "ended":
            house.budget.ended(one)
        elif act == "claim":
            house.budget.claim(one, letter if which % 2 else which)
        else:
            house.budget.leave(one)
        assert len(house.cut) <= before + 1
        assert not any(place.held for place in house.cut)
        here = [place for place in here if place.held]
        regular = [place for place in here if not place.spare]
        assert len(regular) <= 8
        assert len(here) - len(regular) <= 1
        for key in {place.key for place in regular} - {None}:
            assert sum(place.key == key for place in regular) <= EACH
        if len(house.cut) > before and act == "enter":
            assert len(regular) == 8
            if (gone := house.cut[-1]).key is None and gone.address != letter:  # it made room for another one's share
                assert sum(place.key is None and place.address == letter for place in here) <= 4
    for place in here:
        house.budget.leave(place)
    assert not vars(house.budget)["_taken"]
    assert not any(vars(house.budget)[name] for name in ("_strangers", "_sessions", "_idle", "_spare"))
