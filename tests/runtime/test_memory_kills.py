"""Kills for want of memory: whose they are, and which death one explains."""

import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.runtime.memory_kills import KillCount, MemoryKills, count_kills
from tests.control_group import control_group


def kills(*counted: tuple[float, int]) -> MemoryKills:
    """What knows that so many kills were counted in all at these times, after none at the start."""
    known = MemoryKills(KillCount("group", 0))
    for at_s, number in counted:
        known.counted(KillCount("group", number), at_s)
    return known


@given(st.integers(0, 5), st.integers(0, 5))
@example(0, 0)
@example(1, 1)
@example(5, 5)
def test_a_kill_explains_one_death(number: int, deaths: int) -> None:
    known = kills((10.0, number))
    assert [known.explains_death() for _ in range(deaths)] == [death < number for death in range(deaths)]


@pytest.mark.parametrize(("counts", "explained"), [((1, 1), [True]), ((1, 2), [True, True]), ((0, 0), [])])
def test_each_kill_is_counted_once(counts: Iterable[int], explained: list[bool]) -> None:
    known = kills(*((10.0 + number, count) for number, count in enumerate(counts)))
    assert [known.explains_death() for _ in range(len(explained) + 1)] == [*explained, False]


def test_a_kill_that_was_seen_long_ago_explains_nothing() -> None:
    assert kills((10.0, 1), (14.9, 1)).explains_death()
    assert not kills((10.0, 1), (15.1, 1)).explains_death()


def test_a_kill_that_explained_no_death_is_told_once() -> None:
    known = kills((10.0, 2))
    assert known.take_lapsed() == 0
    assert known.explains_death()
    known.counted(KillCount("group", 2), 69.9)
    assert known.take_lapsed() == 0
    known.counted(KillCount("group", 2), 70.1)
    assert [known.take_lapsed(), known.take_lapsed()] == [1, 0]


def test_a_kill_of_a_worker_that_took_long_to_die_does_not_lapse() -> None:
    known = kills((10.0, 1), (17.0, 1))
    assert not known.explains_death()
    known.counted(KillCount("group", 1), 80.0)
    assert known.take_lapsed() == 0


def test_what_another_group_has_counted_is_its_past() -> None:
    known = kills((10.0, 0))
    known.counted(KillCount("another", 7), 11.0)
    assert not known.explains_death()
    known.counted(KillCount("another", 8), 12.0)
    assert known.explains_death()


def test_it_is_counted_each_second() -> None:
    known = kills((10.0, 0))
    assert not known.is_due(10.9)
    assert known.is_due(11.0)


def system(root: Path, memberships: str, counts: dict[str, int], on_host: int | None) -> KillCount:
    """What is counted with these memberships and counting files, and so many kills on the host."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(memberships)
    for path, count in counts.items():
        file = root / "groups" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"low 3\noom 9\noom_kill {count}\n")
    if on_host is not None:
        (root / "proc" / "vmstat").write_text(f"oom_kill {on_host}\n")
    return count_kills(root / "groups", root / "proc")


@pytest.mark.parametrize(
    ("memberships", "counts", "on_host", "expected"),
    [
        ("4:memory:/a/b\n0::/\n", {"memory/a/b/memory.oom_control": 2, "memory/memory.oom_control": 5}, 9, 2),
        ("4:memory:/host/name\n", {"memory/memory.oom_control": 5}, 9, 5),
        ("0::/a/b\n", {"a/b/memory.events.local": 1, "a/b/memory.events": 3}, 9, 1),
        ("0::/a/b\n", {"a/b/memory.events": 3}, 9, 3),
        ("0::/a/b\n", {"a/memory.events.local": 4}, 9, 4),
        ("0::/\n", {"memory.events": 6}, 9, 6),
        ("0::/\n", {}, 9, 9),
        ("", {}, None, 0),
    ],
)
def test_the_nearest_group_counts(
    tmp_path: Path, memberships: str, counts: dict[str, int], on_host: int | None, expected: int
) -> None:
    assert system(tmp_path, memberships, counts, on_host).kills == expected


def test_a_kill_in_another_group_is_none_here(tmp_path: Path) -> None:
    before = count_kills()
    if before.source.endswith("vmstat"):
        pytest.skip("no group counts here, so the whole host is looked at")
    with control_group("memory") as group:
        assert group.exhaust_memory() == -signal.SIGKILL
        assert count_kills() == before
        is_second = (group.path / "memory.events").exists()
        own = f"0::/{group.path.name}\n" if is_second else f"4:memory:/{group.path.name}\n"
        assert system(tmp_path, own, {}, None).kills == 0
        assert count_kills(proc=tmp_path / "proc").kills == 1  # as a member of the group sees it
