"""The decision what makes room, as properties of any versions in memory."""

from math import inf

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.serving.residence import Residence, Resident, room_for

NOW = 1000.0


@st.composite
def residents(draw: st.DrawFn) -> list[Resident[int]]:
    sizes = draw(st.lists(st.integers(1, 100), max_size=8))
    return [
        Resident(
            place,
            size,
            used_s=float(draw(st.integers(900, 1000))),
            loaded_s=float(draw(st.integers(900, 1000))),
            is_kept=draw(st.booleans()),
            is_used=draw(st.booleans()),
        )
        for place, size in enumerate(sizes)
    ]


ALIKE = [Resident(place, 10, used_s=900.0, loaded_s=900.0) for place in range(3)]


@given(residents(), st.integers(1, 120), st.integers(0, 400), st.sampled_from([0.0, 10.0, 50.0]))
@example([], 1, 0, 0.0)
@example(ALIKE[:1], 10, 10, 0.0)
@example(ALIKE, 10, 30, 0.0)
def test_any_room_is_made_rightly(there: list[Resident[int]], size: int, limit: int, stay_s: float) -> None:
    room = room_for(size, there, Residence(limit, stay_s), NOW)
    gone = [resident for resident in there if resident.name in room.unload]
    for resident in gone:
        assert not resident.is_kept
        assert not resident.is_used
        assert NOW - resident.loaded_s >= stay_s
    if not limit:
        assert (room.unload, room.wait_s) == ((), 0.0)
        return
    left = sum(resident.size_bytes for resident in there) - sum(resident.size_bytes for resident in gone)
    if room.wait_s == 0.0:
        assert left + size <= limit
        if gone:  # none of them in vain: without the last one there is no room
            assert left + gone[-1].size_bytes + size > limit or left + min(g.size_bytes for g in gone) + size > limit
        longest = max((resident.used_s for resident in gone), default=0.0)
        for other in there:
            if other.name not in room.unload and other.used_s < longest:  # only what had to stay was used longer ago
                assert other.is_kept or other.is_used or NOW - other.loaded_s < stay_s
    else:
        assert not room.unload
        kept = sum(resident.size_bytes for resident in there if resident.is_kept)
        assert (room.wait_s == inf) == (kept + size > limit)


def test_the_least_recently_used_goes_and_no_more_than_needed() -> None:
    there = [Resident(name, 10, used_s=used, loaded_s=0.0) for name, used in (("a", 5.0), ("b", 3.0), ("c", 9.0))]
    assert room_for(10, there, Residence(30, 10.0), NOW).unload == ("b",)
    assert room_for(15, there, Residence(30, 10.0), NOW).unload == ("b", "a")
    assert room_for(0, there, Residence(30, 10.0), NOW).unload == ()


def test_a_version_that_was_just_loaded_stays_and_the_new_one_waits() -> None:
    there = [Resident("a", 10, used_s=NOW, loaded_s=NOW - 4.0)]
    room = room_for(10, there, Residence(10, 10.0), NOW)
    assert (room.unload, room.wait_s) == ((), 6.0)
