"""Tells where the gateway of a data directory has its models from, as its supervisor has written it down."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

_STATE: Final = ("run", "state.json")


@dataclass(frozen=True, slots=True)
class ServedRepository:
    """The URI of a model repository, "" where nobody knows it, and the directories to which links in it may lead."""

    uri: str = ""
    links_to: tuple[str, ...] = ()


class _Models(msgspec.Struct):
    repository: str = ""
    allow_links_to: str = ""


class _State(msgspec.Struct):
    models: _Models = msgspec.field(default_factory=_Models)


def served_repository(data_dir: Path) -> ServedRepository:
    """Returns the repository of the gateway that runs, or ran last, on this data directory."""
    try:
        state = msgspec.json.decode(data_dir.joinpath(*_STATE).read_bytes(), type=_State)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return ServedRepository()
    links = tuple(path for path in state.models.allow_links_to.split(",") if path)
    return ServedRepository(state.models.repository, links)
