"""Profiles on disk: `<data-dir>/profiles/<model>/<version>/<revision>.json`; the highest revision is in force."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from urllib.parse import quote, unquote

from gateway.drift.statistics.profile_document import profile_json, read_profile
from gateway.drift.statistics.reference_profile import Profile
from gateway.errors import InvalidArgument, NotFound

FOLDER = "profiles"
_SUFFIX = ".json"


class ProfileFiles:
    """The profiles of a data directory. Revisions of a version are dense from 1 on, and never change."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER

    def versions(self, model: str = "") -> list[tuple[str, str]]:
        """Every (model, version) that has a profile, of one model or of all."""
        folders = self.folder.glob(f"{_quoted(model) if model else '*'}/*")
        profiled = {(unquote(folder.parent.name), unquote(folder.name)) for folder in folders if _revisions(folder)}
        return sorted(profiled)

    def revisions(self, model: str, version: str) -> list[int]:
        """The revisions of a version's profile, oldest first."""
        return _revisions(self._folder(model, version))

    def load(self, model: str, version: str, revision: int | None = None) -> Profile:
        """The profile of a version, the current one where no revision is named.

        Raises: NotFound, InvalidArgument (the file is damaged).
        """
        revisions = self.revisions(model, version)
        wanted = revision if revision is not None else (revisions[-1] if revisions else 0)
        path = self._folder(model, version) / f"{wanted}{_SUFFIX}"
        try:
            return read_profile(path.read_bytes())
        except FileNotFoundError:
            which = f" revision {revision}" if revision is not None else ""
            known = ", ".join(f"{name}/{own}" for name, own in self.versions()) or "none"
            raise NotFound(
                f"model {model!r} version {version!r} has no reference profile{which}; there are: {known}"
            ) from None
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}: {error}") from None

    def save(self, profile: Profile) -> Profile:
        """The profile with the revision that it got: the next one of its version.

        Order: complete and durable under its name when this returns; of two that save at once each gets its own.
        Raises: OSError.
        """
        folder = self._folder(profile.model, profile.version)
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            saved = replace(profile, revision=max(self.revisions(profile.model, profile.version), default=0) + 1)
            with NamedTemporaryFile("wb", dir=folder, suffix=".new", delete=False) as staged:
                staged.write(profile_json(saved))
                staged.flush()
                os.fsync(staged.fileno())
            try:
                os.link(staged.name, folder / f"{saved.revision}{_SUFFIX}")
            except FileExistsError:
                continue
            finally:
                os.unlink(staged.name)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(descriptor)
            os.close(descriptor)
            return saved

    def _folder(self, model: str, version: str) -> Path:
        return self.folder / _quoted(model) / _quoted(version)


def _revisions(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit() and not stem.startswith("0"))


def _quoted(name: str) -> str:
    """One path component; "." and ".." are no names of folders that are ours."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if quoted.strip(".") == "" else quoted
