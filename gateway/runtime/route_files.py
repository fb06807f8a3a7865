"""The route documents of a directory, held against what was applied: where they drift apart an event tells."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Final

from gateway.errors import InvalidArgument, StoreUnavailable
from gateway.routing.document.difference import differences
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.notation import ROUTE_SUFFIXES, parse_yaml
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.route_reader import RouteReader
from gateway.telemetry.event_types import EventType

LOOK_S: Final = 5.0
_TOLD: Final = 20  # differences that an event names
Tell = Callable[[EventType, str, int, str, dict[str, object]], None]
_log = logging.getLogger(__name__)


class RouteFiles:
    """Watches one directory. `tell` is given what is new: a model that drifts, or drifts no more.

    Where a rollout is, is no difference. A directory that cannot be read is told as such, and drifts by that.
    """

    def __init__(self, directory: Path, url: str, environment: str, tell: Tell) -> None:
        self._directory = directory
        self._store = RedisStore(url, environment)
        self._reader = RouteReader(self._store)
        self._tell = tell
        self._drifting: Mapping[str, tuple[str, ...]] = {}

    async def run(self) -> None:
        """Looks for ever."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(LOOK_S)
        finally:
            await self._store.aclose()

    async def step(self) -> None:
        """Looks once; while the store is away nothing is known, and nothing is told."""
        try:
            routes = await self._reader.routes()
        except StoreUnavailable as error:
            _log.debug("files of routes cannot be compared: %s", error)
            return
        applied = {model: route.spec for model, route in routes.items()}
        try:
            drifting = drifts(applied, await asyncio.to_thread(read_directory, self._directory))
        except (OSError, InvalidArgument) as error:
            drifting = {"": (str(error),)}
        before, self._drifting = self._drifting, drifting
        for model in sorted(drifting.keys() | before.keys()):
            paths = drifting.get(model)
            if paths == before.get(model):
                continue
            kind = EventType.ROUTE_SETTLED if paths is None else EventType.ROUTE_DRIFTED
            data: dict[str, object] = {"model": model, "directory": str(self._directory), "differs": list(paths or ())}
            revision = routes[model].revision if model in routes else 0
            words = f"{self._directory} {model} {revision} {paths}"
            self._tell(kind, sha256(words.encode()).hexdigest()[:32], int(time() * 1e6), model, data)
            _log.warning("routes of %s: model %r %s: %s", self._directory, model, kind.value, ", ".join(paths or ()))


def drifts(applied: Mapping[str, RouteDocument], wanted: Mapping[str, RouteDocument]) -> dict[str, tuple[str, ...]]:
    """Returns the paths at which the files and what was applied differ, by model; a route without a file is one."""
    apart = {
        model: tuple(one.path for one in differences(applied.get(model), document))[:_TOLD]
        for model, document in wanted.items()
        if applied.get(model) != document
    }
    return apart | dict.fromkeys(applied.keys() - wanted.keys(), ("no file has this route",))


def read_directory(directory: Path) -> dict[str, RouteDocument]:
    """Returns the documents of a directory and those below it, by model.

    Raises: OSError; InvalidArgument (what is no route, two of one model).
    """
    documents: dict[str, RouteDocument] = {}
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is no directory")
    for file in sorted(file for file in directory.rglob("*") if file.suffix in ROUTE_SUFFIXES and file.is_file()):
        for document in parse_yaml(file.read_bytes()):
            if document.model in documents:
                raise InvalidArgument(f"{file}: model {document.model!r} has a document in another file too")
            documents[document.model] = document
    return documents
