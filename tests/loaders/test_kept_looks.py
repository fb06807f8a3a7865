"""Answers that are kept while nothing has moved: the same as those of a new look, whatever happened in between."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loaders.errors import LoaderError
from loaders.filesystem import FilesystemLoader
from loaders.kept_looks import MOST_ENTRIES, KeptLooks, state_of
from loaders.store import ContentStore

PLACES = ("m/1/model.onnx", "m/1/weights/a.bin", "m/2/model.onnx", "m/labels.txt", "m/warmup/x", "n/1/model.onnx")
CHANGES = ("write", "in place", "remove", "directory", "link", "replace", "mode")


def change(root: Path, kind: str, place: str) -> None:
    """Makes one change of the repository; one that cannot be made there changes nothing."""
    path = root / place
    try:
        if kind == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"written")
        elif kind == "in place":
            with path.open("r+b") as file:
                file.write(b"W")
        elif kind == "remove":
            shutil.rmtree(path.parent)
        elif kind == "directory":
            path.unlink()
            path.mkdir()
        elif kind == "link":
            path.unlink()
            path.symlink_to(root / PLACES[0])
        elif kind == "replace":
            path.with_name("new").write_bytes(b"written")
            os.replace(path.with_name("new"), path)
        else:
            path.chmod(0o640)
    except OSError:
        pass


def told(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except LoaderError as error:
        return str(error)


def seen(loader: FilesystemLoader) -> list[object]:
    """All that a scan asks."""
    with loader.one_look():
        loader.models()
        return [
            *(told(partial(ask, model)) for ask in (loader.versions, loader.stamp) for model in "mn"),
            *(told(partial(loader.fingerprint, model, version)) for model in "mn" for version in "12"),
        ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(PLACES)), max_size=8))
@example([])
@example([("in place", PLACES[0])])
@example([("link", PLACES[2]), ("in place", PLACES[0])])
def test_kept_answers_are_those_of_a_new_look(changes: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root, store = Path(directory, "models"), ContentStore(Path(directory, "store"))
        for place in PLACES:
            change(root, "write", place)
        loader = FilesystemLoader(root, store)
        assert seen(loader) == seen(FilesystemLoader(root, store))
        for kind, place in changes:
            change(root, kind, place)
            if any(root.iterdir()):
                assert seen(loader) == seen(loader) == seen(FilesystemLoader(root, store))


def test_what_has_not_moved_is_looked_at_once(tmp_path: Path) -> None:
    looks, numbers = KeptLooks(), count(1)

    def ask() -> int:
        return looks.answer(str(tmp_path / "m"), "a number", lambda: next(numbers))

    (tmp_path / "m" / "1").mkdir(parents=True)
    file = tmp_path / "m" / "1" / "model.onnx"
    file.write_bytes(b"x")
    for _ in range(3):
        with looks.one_look():
            assert (ask(), ask()) == (1, 1)
    assert ask() == 2  # outside of a look
    file.write_bytes(b"y")
    for _ in range(2):
        with looks.one_look():
            assert ask() == 3
    with looks.one_look():  # which does not ask: it is forgotten
        pass
    with looks.one_look():
        assert ask() == 4
    with pytest.raises(KeyError), looks.one_look():  # a look that broke off takes nothing away
        raise KeyError
    with looks.one_look():
        assert ask() == 4


def test_there_is_no_telling_of_links_and_of_too_much(tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "file").touch()
    (few / ".hidden").symlink_to(few / "file")
    assert set(state_of(str(few)) or ()) == {"", str(few / "file")}
    (few / "link").symlink_to(few / "file")
    assert state_of(str(few)) is None
    (tmp_path / "to few").symlink_to(few)
    assert state_of(str(tmp_path / "to few")) is None
    assert state_of(str(few / "file")) is None
    assert state_of(str(tmp_path / "absent")) is None
    many = tmp_path / "many"
    many.mkdir()
    for name in range(MOST_ENTRIES + 1):
        (many / str(name)).touch()
    assert state_of(str(many)) is None
