"""What a worker was running when it died, what follows from that, and how its siblings learn of it."""

import resource
from pathlib import Path
from threading import get_ident
from time import monotonic

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import FailedPrecondition, VersionNotReady
from gateway.serving.refusals import Refusals
from gateway.serving.run_page import (
    ENTRIES,
    LOOP_SLOT,
    MAX_DIGESTS,
    NO_SLOT,
    PAGE_BYTES,
    SLOTS,
    RunPage,
    UnfinishedRun,
    VersionKey,
    unfinished_runs,
)  # fmt: skip
from gateway.serving.run_quarantine import KILLS, MAX_INPUTS, QuarantineFile, RunQuarantine

KEY = VersionKey("div", "1", "sha256:aa")
OTHER = VersionKey("lstm", "7", "sha256:bb")
CAUSE = "killed by SIGFPE"


def run(*digests: int, key: VersionKey = KEY, slot: int = LOOP_SLOT) -> UnfinishedRun:
    return UnfinishedRun(slot, key, 1, len(digests), digests)


def refusals_of(directory: Path, quarantine: RunQuarantine) -> Refusals:
    file = QuarantineFile(directory)
    file.clear()
    file.write(quarantine.versions)
    return Refusals(directory)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=2 * MAX_DIGESTS))
@example([0])
@example([(1 << 64) - 1] * MAX_DIGESTS)
def test_a_page_says_what_had_begun_and_not_ended(tmp_path_factory: pytest.TempPathFactory, digests: list[int]) -> None:
    path = tmp_path_factory.mktemp("page") / "boot"
    page = RunPage(path)
    entry, other = page.register(KEY), page.register(OTHER)
    slot = page.take_slot()
    page.enter(LOOP_SLOT, entry, digests)
    page.enter(slot, other, [5])
    assert [(one.slot, one.key, one.calls, list(one.inputs)) for one in unfinished_runs(path)] == [
        (LOOP_SLOT, KEY, len(digests), digests[:MAX_DIGESTS]),
        (slot, OTHER, 1, [5]),
    ]
    page.leave(LOOP_SLOT)
    page.give_slot(slot)
    assert unfinished_runs(path) == []


def test_a_page_has_its_place_on_the_disk_before_anything_is_written_to_it(tmp_path: Path) -> None:
    RunPage(tmp_path / "boot")
    assert (tmp_path / "boot").stat().st_blocks * 512 >= PAGE_BYTES


def test_a_page_for_which_the_disk_has_no_place_is_none(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE_BYTES // 2, hard))  # EFBIG stands for ENOSPC
    try:
        with pytest.raises(OSError, match="File too large"):
            RunPage(tmp_path / "boot")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_was_full_keeps_no_worker_from_its_start(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            QuarantineFile(tmp_path).clear(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not QuarantineFile(tmp_path).number_path.exists()
    QuarantineFile(tmp_path).number_path.touch()
    assert not Refusals(tmp_path).active


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=6))
@example([[1], [2, 3], [4]])
def test_the_loops_slot_shows_each_run_whole(tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]]) -> None:
    path = tmp_path_factory.mktemp("page") / "boot"
    page = RunPage(path)
    entry = page.register(KEY)
    for digests in runs:
        page.enter_on_loop(entry, digests)
        (shown,) = unfinished_runs(path)
        assert (shown.slot, shown.calls, list(shown.inputs)) == (LOOP_SLOT, len(digests), digests)
        assert shown.thread == get_ident()
        page.leave(LOOP_SLOT)


def test_a_page_has_a_place_for_a_version_as_long_as_it_lives() -> None:
    page = RunPage()
    keys = [VersionKey("m", str(number), "d") for number in range(ENTRIES)]
    assert sorted(page.register(key) for key in keys) == list(range(ENTRIES))
    assert page.register(keys[0]) == page.register(keys[0])
    assert page.register(KEY) == -1
    page.enter(LOOP_SLOT, -1, [1])  # is not shown, and does no harm
    page.forget(keys[3])
    assert page.register(KEY) >= 0
    slots = [page.take_slot() for _ in range(SLOTS)]
    assert slots.count(NO_SLOT) == 1
    assert LOOP_SLOT not in slots


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_page_that_is_not_there_or_cut_off_blames_nobody(tmp_path: Path, content: bytes) -> None:
    assert unfinished_runs(tmp_path / "none") == []
    (tmp_path / "cut").write_bytes(content)
    assert unfinished_runs(tmp_path / "cut") == []


def test_inputs_that_ran_alone_are_refused_until_the_model_is_loaded_again(tmp_path: Path) -> None:
    quarantine = RunQuarantine(600)
    (line,) = quarantine.worker_died([run(17)], CAUSE, monotonic())
    assert line == f"{CAUSE} while it ran model=div version=1 input=0000000000000011: refused from now on"
    refusals = refusals_of(tmp_path, quarantine)
    error = refusals.of_input(KEY, 17)
    assert isinstance(error, FailedPrecondition)
    assert "a worker was killed by SIGFPE" in str(error)
    assert refusals.of_input(KEY, 18) is None
    assert refusals.of_input(OTHER, 17) is None
    assert refusals.of_input(KEY._replace(digest="sha256:cc"), 17) is None  # other files, another version
    assert refusals.of_version(KEY) is None
    assert quarantine.release("div")
    assert not quarantine.release("div")
    QuarantineFile(tmp_path).write(quarantine.versions)
    assert refusals.follow()
    assert not refusals.follow()
    assert refusals.of_input(KEY, 17) is None
    assert not refusals.active


def test_a_death_that_may_have_another_cause_refuses_nothing_until_it_is_repeated(tmp_path: Path) -> None:
    quarantine = RunQuarantine(600)
    (line,) = quarantine.worker_died([run(17)], "killed for want of memory", monotonic(), is_proven=False)
    assert line.endswith("run alone from now on")
    refusals = refusals_of(tmp_path, quarantine)
    assert refusals.of_input(KEY, 17) is None
    assert refusals.is_suspect(KEY, 17)
    (line,) = quarantine.worker_died([run(17)], "killed for want of memory", monotonic(), is_proven=False)
    assert line.endswith("refused from now on")
    refusals = refusals_of(tmp_path, quarantine)
    assert refusals.of_input(KEY, 17) is not None
    assert refusals.of_version(KEY) is None  # one cause, however often it took a worker


MEMORY = "killed for want of memory"


def out_of_memory(quarantine: RunQuarantine, at_s: float, *digests: int, key: VersionKey = KEY) -> str:
    """What is said of a worker that the kernel killed in one run of the version."""
    (line,) = quarantine.worker_died([run(*digests, key=key)], MEMORY, at_s, is_proven=False, for_memory=True)
    quarantine.killed_without([key], at_s)
    return line


def test_deaths_that_may_have_another_cause_refuse_no_version(tmp_path: Path) -> None:
    """What leaks elsewhere in the group takes whoever is the largest: mostly, who runs the busiest model."""
    quarantine, now_s = RunQuarantine(600), monotonic()
    for digests in ((1,), (2,), (3, 4), (5,)):
        assert out_of_memory(quarantine, now_s, *digests).endswith("run alone from now on")
    refusals = refusals_of(tmp_path, quarantine)
    assert refusals.of_version(KEY) is None
    assert quarantine.versions[0].deaths == 4
    for digest in (1, 2):  # each time the same input: it is the version after all
        line = out_of_memory(quarantine, now_s + digest, digest)
    assert "the version is quarantined for 600 s" in line
    assert refusals_of(tmp_path, quarantine).of_version(KEY) is not None


def test_a_version_that_runs_alone_at_every_kill_is_quarantined_until_one_comes_without_it(tmp_path: Path) -> None:
    quarantine, now_s = RunQuarantine(600), monotonic()
    for digest in range(KILLS - 1):
        assert out_of_memory(quarantine, now_s + digest, digest).endswith("run alone from now on")
    assert out_of_memory(quarantine, now_s + 9, 9).endswith("the version is quarantined on suspicion for 600 s")
    refused = refusals_of(tmp_path, quarantine).of_version(KEY)
    assert "4 workers were killed for want of memory while it alone ran" in str(refused)
    assert quarantine.killed_without([], now_s + 10) == [KEY]  # somebody else it is
    assert refusals_of(tmp_path, quarantine).of_version(KEY) is None
    for digest in range(100, 100 + 2 * KILLS):
        assert out_of_memory(quarantine, now_s + digest, digest).endswith("run alone from now on")
    assert out_of_memory(quarantine, now_s + 611, 611).endswith("on suspicion for 600 s")  # cleared, not for ever
    assert quarantine.release(KEY.model)


@pytest.mark.parametrize(
    ("kills", "what"),
    [
        ([(0, KEY, (1,)), (1, KEY, (2,)), (2, OTHER, (7,)), (3, KEY, (3,)), (4, KEY, (4,))], "one without it"),
        ([(0, KEY, (1,)), (601, KEY, (2,)), (602, KEY, (3,)), (603, KEY, (4,))], "long ago"),
        ([(0, KEY, (1,)), (1, KEY, (2,)), (2, KEY, (3, 4)), (3, KEY, (5,))], "of several inputs"),
    ],
    ids=str,
)
def test_fewer_kills_than_that_suspect_nobody(
    kills: list[tuple[float, VersionKey, tuple[int, ...]]], what: str
) -> None:
    quarantine = RunQuarantine(600)
    for at_s, key, digests in kills:
        assert out_of_memory(quarantine, 1000 + at_s, *digests, key=key).endswith("run alone from now on"), what


def test_two_versions_that_want_too_much_do_not_clear_each_other() -> None:
    quarantine = RunQuarantine(600)
    quarantined: dict[VersionKey, int] = {}
    for digest in range(2 * KILLS):
        key = (KEY, OTHER)[digest % 2]
        if out_of_memory(quarantine, 1000 + digest, digest, key=key).endswith("quarantined on suspicion for 600 s"):
            quarantined[key] = digest + 1
    assert quarantined == {KEY: 2 * KILLS - 1, OTHER: 2 * KILLS}
    assert quarantine.killed_without([], 1100) == [KEY, OTHER]


def test_a_first_kill_of_another_version_releases_nobody() -> None:
    quarantine = RunQuarantine(600)
    for digest in range(KILLS):
        out_of_memory(quarantine, 1000 + digest, digest)
    out_of_memory(quarantine, 1010, 10, key=OTHER)
    assert {version.key: version.suspected for version in quarantine.versions} == {KEY: True, OTHER: False}


def test_a_kill_by_inputs_that_are_known_counts_too() -> None:
    quarantine = RunQuarantine(600)
    lines = [out_of_memory(quarantine, 1000 + 40 * kill, kill // 2) for kill in range(KILLS)]
    assert ["quarantined" in line for line in lines] == [False] * (KILLS - 1) + [True]


def test_a_suspicion_takes_no_proof_away(tmp_path: Path) -> None:
    quarantine, now_s = RunQuarantine(600), monotonic()
    for digest in range(KILLS - 1):
        out_of_memory(quarantine, now_s, digest)
    for digest in (100, 101):
        quarantine.worker_died([run(digest)], CAUSE, now_s)
    out_of_memory(quarantine, now_s, 9)  # was under way
    assert quarantine.killed_without([], now_s) == []
    assert "2 workers died of it within a minute" in str(refusals_of(tmp_path, quarantine).of_version(KEY))


def test_a_suspicion_ends_with_its_time() -> None:
    quarantine = RunQuarantine(60)
    for digest in range(KILLS):
        out_of_memory(quarantine, 1000 + digest, digest)
    assert quarantine.expire(1064)
    assert (quarantine.versions[0].until_s, quarantine.killed_without([], 1064)) == (0.0, [])
    assert out_of_memory(quarantine, 1065, 77).endswith("run alone from now on")


def test_of_several_inputs_each_is_a_suspect_and_equal_ones_are_one(tmp_path: Path) -> None:
    quarantine = RunQuarantine(600)
    quarantine.worker_died([run(1, 2)], CAUSE, monotonic())
    refusals = refusals_of(tmp_path, quarantine)
    assert refusals.is_suspect(KEY, 1)
    assert refusals.is_suspect(KEY, 2)
    assert refusals.of_input(KEY, 1) is None
    quarantine.worker_died([run(3, 3, 3, key=OTHER)], CAUSE, monotonic())
    assert refusals_of(tmp_path, quarantine).of_input(OTHER, 3) is not None


def test_two_deaths_within_a_minute_quarantine_a_version(tmp_path: Path) -> None:
    now_s = monotonic()
    quarantine = RunQuarantine(600)
    quarantine.worker_died([run(1)], CAUSE, now_s - 61)
    quarantine.worker_died([run(2)], CAUSE, now_s)
    assert refusals_of(tmp_path, quarantine).of_version(KEY) is None
    (line,) = quarantine.worker_died([run(3)], CAUSE, now_s + 1)
    assert "quarantined for 600 s" in line
    error = refusals_of(tmp_path, quarantine).of_version(KEY)
    assert isinstance(error, VersionNotReady)
    assert "2 workers died of it within a minute (killed by SIGFPE); load the model again" in str(error)
    assert quarantine.expire(now_s + 602)
    assert not quarantine.expire(now_s + 602)
    assert refusals_of(tmp_path, quarantine).of_version(KEY) is None


def test_where_several_versions_ran_none_is_charged_with_the_death(tmp_path: Path) -> None:
    quarantine = RunQuarantine(600)
    for _ in range(5):
        quarantine.worker_died([run(1), run(2, key=OTHER, slot=1)], CAUSE, monotonic())
    refusals = refusals_of(tmp_path, quarantine)
    assert refusals.of_version(KEY) is None
    assert refusals.is_suspect(KEY, 1)
    assert refusals.is_suspect(OTHER, 2)


def test_only_so_many_inputs_are_remembered() -> None:
    quarantine = RunQuarantine(600)
    for number in range(MAX_INPUTS + 5):
        quarantine.worker_died([run(number)], CAUSE, 0.0)
    (version,) = quarantine.versions
    assert list(version.inputs) == list(range(5, MAX_INPUTS + 5))


@pytest.mark.parametrize("content", [b"", b"{", b'[{"model": 1}]'])
def test_a_document_that_cannot_be_read_refuses_nothing(tmp_path: Path, content: bytes) -> None:
    file = QuarantineFile(tmp_path)
    file.clear()
    (tmp_path / "quarantine.json").write_bytes(content)
    assert file.read() == []
    assert not Refusals(tmp_path).active
    assert not Refusals(tmp_path / "none").active
