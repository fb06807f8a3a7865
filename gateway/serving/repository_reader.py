"""The reader of the repository and of the intents, on threads of their own: neither disk nor lock holds up the loop.

Intents do not wait for a look at a repository that does not answer: an operator who unloads a model is obeyed at once.
Nor does the end of the process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from gateway.serving.config_source import ConfigSource
from gateway.serving.intents import Intents, IntentStore
from gateway.serving.repository import ModelRepository
from gateway.serving.view import RepositoryView, read_view
from gateway.threads import DaemonThread, started_threads
from loaders.store import ContentStore

T = TypeVar("T")


class RepositoryReader:
    """Reads what is there, one look after the other, and changes what operators want, one change after the other."""

    def __init__(self, repository: ModelRepository, intents: IntentStore, store: ContentStore | None) -> None:
        self.threads = DaemonThread("repository")  # a look may hang where the repository is
        self._repository = repository
        self._intents = intents
        self._store = store
        self._deciding = started_threads(1, "intents")
        self._decided = 0  # changes of the intents, and what the newest left
        self._newest: Intents | None = None

    def on_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        """Returns what the work returns, done on the thread."""
        return asyncio.get_running_loop().run_in_executor(self.threads, work)

    async def has(self, model: str) -> bool:
        """Returns whether the repository has a directory of that name."""
        return bool(await self.on_thread(lambda: self._repository.look(model)))

    async def look(
        self,
        change: Callable[[Intents], Intents] = lambda intents: intents,
        model: str = "",
        override: ConfigSource | None = None,
    ) -> RepositoryView:
        """Returns the view of the disk as it would be after a change of the intents that is not made yet.

        Order: it has the intents as they are when it returns, whatever was decided during the look.
        """

        def read() -> RepositoryView:
            intents = change(self._intents.read())
            return read_view(self._repository, intents, store=self._store, model=model, override=override)

        decided = self._decided
        view = await self.on_thread(read)
        if self._newest is None or self._decided == decided:
            return view
        return replace(view, intents=change(self._newest))

    async def change_intents(self, change: Callable[[Intents], Intents]) -> Intents:
        """Returns the intents as they are on disk now, with the change. Raises: Unavailable."""
        loop = asyncio.get_running_loop()
        intents = await loop.run_in_executor(self._deciding, lambda: self._intents.change(change))
        self._decided, self._newest = self._decided + 1, intents
        return intents

    def read_intents(self) -> Intents:
        """Returns the intents on disk. On the thread."""
        return self._intents.read()

    def close(self) -> None:
        """Ends the threads."""
        self.threads.shutdown(wait=False)
        self._deciding.shutdown(wait=False)
