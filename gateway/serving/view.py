"""The repository and the operators' intents, read together: the catalog decides by them."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.errors import FailedPrecondition, GatewayError
from gateway.serving.candidate import Candidate
from gateway.serving.config_source import EMPTY, ConfigSource, parse_json
from gateway.serving.intents import Intents
from gateway.serving.kept_files import kept_folder
from gateway.serving.repository import Key, ModelFolder, ModelRepository, wanted
from loaders.errors import LoaderError
from loaders.store import ContentStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepPin:
    """A step of an ensemble, counted from 1, that names a version by its number; `origin` has the ensemble."""

    model: str
    version: str
    ensemble: str
    step: int
    origin: str


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """Holds the state of the disk at one moment.

    `overrides` are the configurations that replace config.pbtxt; `passed_over` names what cannot be a version, and why;
    `kept` has the models that are gone from the repository, or whose configuration nobody could read yet, as the
    content store has them, because a route names them;
    `trouble` says which of several repositories could not be listed, or with `is_blind` that none could be since the
    process began: what routes need of it is in `kept`, and what else there is nobody knows.
    """

    folders: Mapping[str, ModelFolder]
    intents: Intents
    overrides: Mapping[str, ConfigSource]
    passed_over: Mapping[str, str]
    kept: Mapping[str, ModelFolder] = field(default_factory=dict)
    trouble: str = ""
    is_blind: bool = False

    def loadable_pins(self) -> Mapping[str, Mapping[str, str]]:
        """Returns the digests of routed versions by model and version, where the model's configuration is known."""
        known = self.folders.keys() | self.kept.keys()
        return {model: pins for model, pins in self.intents.pins.items() if model in known}

    def step_pins(self) -> Iterator[StepPin]:
        """Yields the steps of ensembles that name a version by its number, whether the ensemble serves or not."""
        for name, folder in sorted(self.folders.items()):
            message = self.overrides.get(name, folder.source).message
            for place, step in enumerate(message.ensemble_scheduling.step, 1):
                if step.model_version > 0:
                    yield StepPin(step.model_name, str(step.model_version), name, place, folder.origin)

    def wishes(self, required: Mapping[str, frozenset[str]]) -> dict[Key, str]:
        """Returns the fingerprints of the versions that are to serve; `required` has those that routes name."""
        return wanted(self.folders, required, self.intents.unloaded, self.overrides, self.loadable_pins())

    def has(self, key: Key) -> bool:
        """Returns whether the version is in the repository."""
        folder = self.folders.get(key[0])
        return folder is not None and key[1] in folder.versions

    def why_ended(self, key: Key) -> str:
        """Returns why a version that served is not wanted any more."""
        if key[0] in self.intents.unloaded:
            return "unloaded"
        return "not selected by the version policy" if self.has(key) else "removed from the repository"

    def candidate(self, key: Key, fingerprint: str) -> Candidate:
        """Returns the version as this view would load it. The view must have the model, in `folders` or `kept`."""
        pin = self.intents.pins.get(key[0], {}).get(key[1], "")
        folder = self.folders.get(key[0])
        if folder is None or (pin and key[0] in self.kept):
            folder = self.kept[key[0]]
        return Candidate(folder, key[1], self.overrides.get(key[0], folder.source), fingerprint, pin)


EMPTY_VIEW = RepositoryView({}, Intents(), {}, {})


def read_view(
    repository: ModelRepository,
    intents: Intents,
    *,
    store: ContentStore | None = None,
    model: str = "",
    override: ConfigSource | None = None,
) -> RepositoryView:
    """Returns the present view with these intents; `override` is the parsed configuration that replaces `model`'s.

    `store` has what routes need of models that are gone.

    Raises: FailedPrecondition, if the repository cannot be listed, and nothing is kept that could serve meanwhile.
    """
    overrides = dict(_parsed(intents.overrides))
    if override is not None:
        overrides[model] = override
    try:
        folders = repository.scan()
    except FailedPrecondition as error:
        if store is None or repository.was_listed:
            raise
        return blind_view(intents, store, error)
    known = {name: folder for name, folder in folders.items() if not (folder.is_unread and folder.source is EMPTY)}
    kept = dict(_kept(known, intents, store)) if store is not None else {}
    return RepositoryView(folders, intents, overrides, repository.passed_over, kept, repository.trouble)


def blind_view(intents: Intents, store: ContentStore, error: FailedPrecondition) -> RepositoryView:
    """Returns what can serve while nobody has seen the repository, for the reason in `error`.

    Raises: `error`, if nothing is kept that could.
    """
    kept = dict(_kept({}, intents, store))
    if not kept:
        raise error
    return RepositoryView({}, intents, dict(_parsed(intents.overrides)), {}, kept, str(error), is_blind=True)


def _kept(
    folders: Mapping[str, ModelFolder], intents: Intents, store: ContentStore
) -> Iterator[tuple[str, ModelFolder]]:
    for model in intents.pins.keys() - folders.keys():
        try:
            folder = kept_folder(store, model, intents.kept.get(model, ""))
        except LoaderError as error:
            logger.warning("kept files cannot be read: model=%s error=%s", model, error)
            continue
        if folder is not None:
            yield model, folder


def _parsed(overrides: Mapping[str, str]) -> Iterator[tuple[str, ConfigSource]]:
    for model, text in overrides.items():
        try:
            yield model, parse_json(text)
        except GatewayError as error:
            logger.warning("kept configuration is passed over: model=%s error=%s", model, error)
