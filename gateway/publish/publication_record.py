"""Puts a version into a repository that is a directory, whole or not at all, with a record of who did it and why.

<repository>/<model>/<version>/               the files, and their manifest.sha256; of an ensemble none
<repository>/<model>/config.pbtxt             of an ensemble
<repository>/<model>/.publications/<version>.json
"""

import os
import shutil
from collections.abc import Mapping
from errno import EEXIST, ENOTEMPTY
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import msgspec

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.publish.checklist import Checklist
from gateway.publish.retirement import RETIRED, clear_abandoned, has_versions, sync
from gateway.serving.model_config import check_model_name, check_version_name, is_version_name
from gateway.serving.provenance import RECORDS, Publication
from loaders import manifest
from loaders.loader import LocalVersion

_TRIES: Final = 100
_STAGING: Final = ".publishing-"


def publish(
    content: LocalVersion | Mapping[str, bytes],
    repository: Path,
    checklist: Checklist,
    *,
    version: str,
    publisher: str,
    now_s: float,
    lineage: dict[str, str],
) -> str:
    """Returns the name under which the version is in the repository now: `version`, or the next number.

    The files are those that were tried. They appear by one rename, so that no gateway sees half of them; the record is
    there before. `content` is the version's files, or what lies beside the directory of one that has none, by name.

    Raises: FailedPrecondition (there is such a version, or the directory cannot be written; what lies beside the other
            versions is something else), InvalidArgument.
    """
    check_model_name(checklist.model)
    if version:
        check_version_name(version)
    model = repository / checklist.model
    try:
        model.mkdir(exist_ok=True)
        clear_abandoned(model, _STAGING, now_s)
        staging = Path(mkdtemp(prefix=_STAGING, dir=model))
        added: list[Path] = []
        try:
            if isinstance(content, LocalVersion):
                _copy(content, staging)
            else:
                staging.chmod(0o755)
                _add_beside(model, content, added)
            for _ in range(_TRIES):
                name = version or str(_next_number(model))
                record = Publication(name, checklist.digest, publisher, now_s, lineage, checklist.facts)
                if _placed(staging, model, name, record):
                    added.clear()
                    return name
                if version:
                    raise FailedPrecondition(
                        f"model {checklist.model!r} has a version {version!r}, or had one: a published version never "
                        f"changes, take another name"
                    )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            if added and not has_versions(model):  # those of somebody else who published the same meanwhile need it
                for path in added:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise FailedPrecondition(f"the repository cannot be written: {error.strerror}") from error
    raise FailedPrecondition(f"{_TRIES} numbers were taken by others meanwhile: try again")


def lineage_of(pairs: list[str]) -> dict[str, str]:
    """Returns what `NAME=VALUE` pairs say. Raises: InvalidArgument."""
    lineage = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or len(pair) > 2000:
            raise InvalidArgument(f"--lineage is {pair[:80]!r}, expected NAME=VALUE of at most 2000 characters")
        lineage[name.strip()] = value.strip()
    return lineage


def _next_number(model: Path) -> int:
    """Returns a number that no version of the model has, or had."""
    taken = [*model.iterdir(), *model.glob(f"{RETIRED}/*"), *model.glob(f"{RECORDS}/*.json")]
    names = [path.name.removesuffix(".json") for path in taken]
    # Whatever else lies there: other scripts have digits, too, and a version's number has a limit.
    return max((int(name) for name in names if name.isdigit() and is_version_name(name)), default=0) + 1


def _copy(local: LocalVersion, staging: Path) -> None:
    for entry in local.files:
        target = staging / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local.path / entry.name, target)
        sync(target)
    listing = staging / manifest.FILENAME
    listing.write_text(manifest.render(local.files), "ascii")
    sync(listing)
    for directory in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
        sync(directory)


def _add_beside(model: Path, content: Mapping[str, bytes], added: list[Path]) -> None:
    """Writes what all versions of the model share; `added` is what was not there before.

    Raises: FailedPrecondition (something else is there: the versions that there are would change with it).
    """
    for name, data in content.items():
        target = model / name
        if target.exists():
            if target.read_bytes() != data:
                raise FailedPrecondition(
                    f"model {model.name!r} has another {name!r} already, which all of its versions share: they would "
                    f"change with it. Publish it under another name, or write the file there yourself"
                )
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            fresh.write_bytes(data)
            sync(fresh)
            os.replace(fresh, target)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        added.append(target)
    sync(model)


def _placed(staging: Path, model: Path, name: str, record: Publication) -> bool:
    """Whether the version is in its place; not where there is one of that name."""
    target = model / name
    if target.exists() or (model / RETIRED / name).exists() or (model / RETIRED / f"{name}.json").exists():
        return False
    records = model / RECORDS
    records.mkdir(exist_ok=True)
    try:
        file = (records / f"{name}.json").open("xb")  # whoever makes it has the name
    except FileExistsError:
        return False
    try:
        with file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        os.rename(staging, target)
    except OSError as error:
        (records / f"{name}.json").unlink(missing_ok=True)
        if error.errno in (EEXIST, ENOTEMPTY):
            return False
        raise
    sync(model)
    return True
