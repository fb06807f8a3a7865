"""The repository and the operators' intents, read together: the catalog decides by them."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.serving.config_source import ConfigSource, parse_json
from gateway.serving.intents import Intents
from gateway.serving.lifecycle import Candidate
from gateway.serving.repository import Key, ModelFolder, ModelRepository

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """Holds the state of the disk at one moment.

    `overrides` are the configurations that replace config.pbtxt; `passed_over` names what cannot be a version, and why.
    """

    folders: Mapping[str, ModelFolder]
    intents: Intents
    overrides: Mapping[str, ConfigSource]
    passed_over: Mapping[str, str]

    def candidate(self, key: Key, fingerprint: str) -> Candidate:
        """Returns the version as this view would load it. The view must have the model's folder."""
        folder = self.folders[key[0]]
        pin = self.intents.pins.get(key[0], {}).get(key[1], "")
        return Candidate(folder, key[1], self.overrides.get(key[0], folder.source), fingerprint, pin)


EMPTY_VIEW = RepositoryView({}, Intents(), {}, {})


def read_view(
    repository: ModelRepository, intents: Intents, *, model: str = "", override: ConfigSource | None = None
) -> RepositoryView:
    """Returns the present view with these intents; `override` is the parsed configuration that replaces `model`'s.

    Raises: FailedPrecondition, if the repository cannot be listed.
    """
    overrides = dict(_parsed(intents.overrides))
    if override is not None:
        overrides[model] = override
    return RepositoryView(repository.scan(), intents, overrides, repository.passed_over)


def _parsed(overrides: Mapping[str, str]) -> Iterator[tuple[str, ConfigSource]]:
    for model, text in overrides.items():
        try:
            yield model, parse_json(text)
        except GatewayError as error:
            logger.warning("kept configuration is passed over: model=%s error=%s", model, error)
