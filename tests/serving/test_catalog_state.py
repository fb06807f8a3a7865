"""What operators asked by hand: on disk, shared by processes, and robust against damage. And the life-cycle table."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from gateway.errors import Unavailable, UnknownVersion, VersionNotReady
from gateway.serving.intents import Intents, IntentStore
from gateway.serving.version import MOVES, IllegalVersionMove, Version, VersionEvent, VersionState


def test_changes_are_kept_and_taken_back(tmp_path: Path) -> None:
    store = IntentStore(tmp_path / "state")
    assert store.read() == Intents()
    store.change(lambda intents: intents.with_unload("a"))
    store.change(lambda intents: intents.with_load("b", '{"max_batch_size": 2}'))
    assert IntentStore(tmp_path / "state").read() == Intents(frozenset("a"), {"b": '{"max_batch_size": 2}'})
    store.change(lambda intents: intents.with_load("a", None).with_load("b", None))
    assert store.read() == Intents()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["lock", "overrides.json", "unloaded.json"]


def test_changes_of_several_workers_do_not_lose_each_other(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(40)]

    def unload(name: str) -> None:
        IntentStore(tmp_path).change(lambda intents: intents.with_unload(name))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(unload, names))
    assert IntentStore(tmp_path).read().unloaded == frozenset(names)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"3", b'{"a": 1}', b"[" * 100_000, b"[1, null]"])
def test_damaged_files_count_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "unloaded.json").write_bytes(content)
    (tmp_path / "overrides.json").write_bytes(content)
    assert IntentStore(tmp_path).read() == Intents()


def test_a_directory_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    with pytest.raises(Unavailable, match="cannot be kept"):
        IntentStore(tmp_path / "state").change(lambda intents: intents.with_unload("a"))


PATHS: dict[VersionState, list[VersionEvent]] = {
    VersionState.START: [],
    VersionState.LOADING: [VersionEvent.LOAD],
    VersionState.AVAILABLE: [VersionEvent.LOAD, VersionEvent.READY],
    VersionState.UNLOADING: [VersionEvent.LOAD, VersionEvent.READY, VersionEvent.RETIRE],
    VersionState.END: [VersionEvent.DROP],
    VersionState.FAILED: [VersionEvent.LOAD, VersionEvent.FAIL],
}


@pytest.mark.parametrize(("state", "event"), list(product(VersionState, VersionEvent)))
def test_every_move_is_in_the_table_or_an_error(state: VersionState, event: VersionEvent) -> None:
    version = Version("m", "1")
    for step in PATHS[state]:
        version.move(step)
    assert version.state is state
    if (state, event) in MOVES:
        version.move(event, "why")
        assert (version.state, version.reason) == (MOVES[state, event], "why")
    else:
        with pytest.raises(IllegalVersionMove):
            version.move(event)
        assert version.state is state


def test_the_last_lease_of_a_retired_version_lets_it_go() -> None:
    let_go: list[Version] = []
    version = Version("m", "1")
    version.on_idle = let_go.append
    for step in PATHS[VersionState.AVAILABLE]:
        version.move(step)
    version.lease()
    version.release()
    assert not let_go
    version.lease()
    version.lease()
    version.move(VersionEvent.RETIRE)
    version.release()
    assert not let_go
    version.release()
    assert let_go == [version]


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (VersionState.LOADING, Unavailable, "not at ready state: loading"),
        (VersionState.UNLOADING, Unavailable, "not at ready state: unloading"),
        (VersionState.END, UnknownVersion, "is not found"),
        (VersionState.FAILED, VersionNotReady, "is not ready"),
    ],
)
def test_refusals_say_what_holds(state: VersionState, error: type[Exception], text: str) -> None:
    version = Version("m", "1")
    for step in PATHS[state]:
        version.move(step)
    assert isinstance(version.refusal(), error)
    assert text in str(version.refusal())
