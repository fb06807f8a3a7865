"""Which ensembles of a repository that is a directory pin a version of a step's model by its number."""

from pathlib import Path

from gateway.errors import FailedPrecondition
from gateway.publish.retirement import has_versions
from gateway.serving.config_source import MAX_BYTES, parse_text
from gateway.serving.model_kind import ModelKind, kind_of
from gateway.serving.repository import CONFIG_FILENAME

_SCHEDULING = b"ensemble_scheduling"


def check_unpinned(repository: Path, model: str, version: str) -> None:
    """Checks that no step of an ensemble that has a version names this version of this model.

    Raises: FailedPrecondition naming the ensemble and the step, or the configuration that cannot tell.
    """
    try:
        paths = sorted(repository.glob(f"[!.]*/{CONFIG_FILENAME}"))
    except OSError as error:
        raise FailedPrecondition(f"the repository cannot be read: {error.strerror}") from error
    for path in paths:
        if place := _pinning_step(path, model, version):
            name = path.parent.name
            raise FailedPrecondition(
                f"version {version!r} of model {model!r} is in use: step {place} of the ensemble {name!r} pins it: "
                f"change its model_version in {name}/{CONFIG_FILENAME}, or retire the versions of {name!r}, first"
            )


def _pinning_step(path: Path, model: str, version: str) -> int:
    """Returns the place, counted from 1, of the step that pins the version; 0 if none does."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if _SCHEDULING not in text or not has_versions(path.parent):
            return 0
        source = parse_text(text, f"{path.parent.name}/{CONFIG_FILENAME}")
        if kind_of(source) is not ModelKind.ENSEMBLE:
            return 0
    except OSError as error:
        raise _untold(version, f"{path} cannot be read: {error.strerror}") from error
    except FailedPrecondition as error:
        raise _untold(version, str(error)) from error
    for place, step in enumerate(source.message.ensemble_scheduling.step, 1):
        if step.model_name == model and str(step.model_version) == version:
            return place
    return 0


def _untold(version: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"nobody can tell whether an ensemble pins version {version!r}: {why}: mend it, or take it out of the "
        f"repository"
    )
