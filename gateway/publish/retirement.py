"""Takes a version out of a repository that is a directory, by one rename, so that it can be brought back whole.

<repository>/<model>/.retired/<version>/        the files: no gateway reads names with a dot in front
<repository>/<model>/.retired/<version>.json    who retired it, when and why; it stays when the files are deleted

The name of a version that was retired or deleted is never given to another one.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from errno import EEXIST, ENOENT, ENOTEMPTY
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import msgspec

from gateway.errors import FailedPrecondition, NotFound
from gateway.serving.model_config import check_model_name, check_version_name, is_version_name

RETIRED: Final = ".retired"
_DELETING: Final = ".deleting-"
_ABANDONED_S: Final = 86_400.0  # nobody writes or removes so long


class Retirement(msgspec.Struct, frozen=True):
    """The record of a retired version; `deleted_at` is 0 while its files are there.

    Units: seconds since the epoch.
    """

    version: str
    retired_by: str
    retired_at: float
    reason: str = ""
    deleted_by: str = ""
    deleted_at: float = 0.0


def retire(repository: Path, model: str, retirement: Retirement, check_unused: Callable[[], None]) -> None:
    """Moves the version aside. `check_unused` raises if something uses it, and is asked before and after.

    A change of the rules that came between puts the version back, so that it is never gone for long.

    Raises: NotFound (no such version), FailedPrecondition (a link leads to it, it cannot be moved), InvalidArgument,
            and what `check_unused` raises.
    """
    version = retirement.version
    place = _place(repository, model, version)
    _check_directory(place, f"model {model!r} has no version {version!r} in {repository}")
    _check_no_links(repository, place)
    check_unused()
    aside = _aside(repository, model, version)
    if aside.exists():
        raise FailedPrecondition(
            f"model {model!r} has a retired version {version!r} already: delete that one first "
            f"(gateway delete {model} {version})"
        )
    try:
        aside.parent.mkdir(exist_ok=True)
        _record(aside, retirement)
    except OSError as error:
        raise _unwritable(error) from error
    try:
        _move(place, aside)
    except FailedPrecondition:  # it is still in its place
        _record_path(aside).unlink(missing_ok=True)
        raise
    try:
        check_unused()
    except BaseException:
        _move(aside, place)
        _record_path(aside).unlink(missing_ok=True)
        raise


def bring_back(repository: Path, model: str, version: str) -> None:
    """Moves a retired version back into its place. Raises: NotFound, FailedPrecondition, InvalidArgument."""
    aside = check_retired(repository, model, version)
    place = _place(repository, model, version)
    if place.exists():
        raise FailedPrecondition(f"model {model!r} has another version {version!r} by now: move that one away first")
    _move(aside, place)
    _record_path(aside).unlink(missing_ok=True)


def delete_retired(repository: Path, model: str, version: str, *, deleter: str, now_s: float) -> None:
    """Removes a retired version's files for good; the records of its publication and retirement stay.

    What an earlier one that was killed has left of other versions goes, too.

    Raises: NotFound, FailedPrecondition (it is not retired, it cannot be removed), InvalidArgument.
    """
    aside = check_retired(repository, model, version)
    record = _read(_record_path(aside), version)
    try:
        clear_abandoned(aside.parent, _DELETING, now_s)
        going = Path(mkdtemp(prefix=_DELETING, dir=aside.parent))
    except OSError as error:
        raise _unwritable(error) from error
    try:
        _move(aside, going / version)  # nobody brings half of it back
        _record(aside, msgspec.structs.replace(record, deleted_by=deleter, deleted_at=now_s))
        shutil.rmtree(going)
    except OSError as error:
        raise FailedPrecondition(
            f"the files of version {version!r} cannot be removed: {error.strerror}; what is left lies in {going}"
        ) from error
    finally:
        if not any(going.iterdir() if going.is_dir() else ()):
            shutil.rmtree(going, ignore_errors=True)


def check_retired(repository: Path, model: str, version: str) -> Path:
    """Returns where a retired version's files lie.

    Raises: NotFound, FailedPrecondition (it is a version that is not retired), InvalidArgument.
    """
    place = _place(repository, model, version)
    aside = _aside(repository, model, version)
    if not aside.is_dir() and place.is_dir():
        raise FailedPrecondition(
            f"version {version!r} of model {model!r} is not retired: retire it first (gateway retire {model} {version})"
        )
    _check_directory(aside, f"model {model!r} has no retired version {version!r} (gateway retire {model} lists them)")
    return aside


def retirements(repository: Path, model: str) -> list[Retirement]:
    """Returns what was retired of the model, deleted versions too, by name. Raises: InvalidArgument."""
    check_model_name(model)
    listed = {}
    for path in (repository / model / RETIRED).glob("*"):
        version = path.name.removesuffix(".json")
        if not version.startswith("."):
            listed[version] = _read(path.with_name(f"{version}.json"), version)
    return [listed[version] for version in sorted(listed, key=lambda name: (len(name), name))]


def has_versions(model: Path) -> bool:
    """Returns whether the directory of a model holds versions. Raises: OSError."""
    return any(is_version_name(path.name) and path.is_dir() for path in model.iterdir())


def clear_abandoned(directory: Path, prefix: str, now_s: float) -> None:
    """Removes the directories of that prefix which commands that were killed have left there. Raises: OSError."""
    for left in directory.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            if now_s - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


def sync(path: Path) -> None:
    """Makes a file, or the entries of a directory, last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _place(repository: Path, model: str, version: str) -> Path:
    check_model_name(model)
    check_version_name(version)
    return repository / model / version


def _aside(repository: Path, model: str, version: str) -> Path:
    return repository / model / RETIRED / version


def _record_path(aside: Path) -> Path:
    return aside.with_name(f"{aside.name}.json")


def _check_directory(place: Path, text: str) -> None:
    if place.is_symlink():
        raise FailedPrecondition(f"{place} is a symbolic link: set it anew, or remove it yourself")
    if not place.is_dir():
        raise NotFound(text)


def _check_no_links(repository: Path, place: Path) -> None:
    """Checks that no link of the repository, such as a label, leads to the version. Raises: FailedPrecondition."""
    real = place.resolve()
    try:
        models = [path for path in repository.iterdir() if not path.name.startswith(".") and path.is_dir()]
        for model in models:
            if model.is_symlink() and model.resolve() == real.parent:
                raise FailedPrecondition(f"model {model.name!r} is a link to this model: retire its versions there")
            for path in () if model.is_symlink() else model.iterdir():
                if path.is_symlink() and (path.resolve() == real or real in path.resolve().parents):
                    raise FailedPrecondition(
                        f"{path.relative_to(repository)} is a link to the version: set it anew or remove it first"
                    )
    except OSError as error:
        raise FailedPrecondition(f"the repository cannot be read: {error.strerror}") from error


def _move(source: Path, target: Path) -> None:
    """Renames a version's directory. Raises: FailedPrecondition, NotFound (it went meanwhile)."""
    try:
        os.rename(source, target)
        for directory in {source.parent, target.parent}:
            sync(directory)
    except OSError as error:
        if error.errno == ENOENT:
            raise NotFound(f"{source} is not there any more: somebody else moved it meanwhile") from error
        if error.errno in (EEXIST, ENOTEMPTY):
            raise FailedPrecondition(f"{target} is there already: nothing was moved") from error
        raise _unwritable(error) from error


def _record(aside: Path, retirement: Retirement) -> None:
    """Writes the record, whole or not at all."""
    path = _record_path(aside)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(retirement))
    sync(fresh)
    os.replace(fresh, path)


def _read(path: Path, version: str) -> Retirement:
    """Returns the record; one that says nothing where it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Retirement)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Retirement(version, "", 0.0)


def _unwritable(error: OSError) -> FailedPrecondition:
    return FailedPrecondition(f"the repository cannot be written: {error.strerror}")
