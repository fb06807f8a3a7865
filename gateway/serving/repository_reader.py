"""The reader of the repository and of the intents, on threads of their own: neither disk nor lock holds up the loop.

Intents do not wait for a look at a repository that does not answer: an operator who unloads a model is obeyed at once.
Nor does the end of the process, nor a start, with the route changes after it, for longer than `FIRST_LOOK_S` in all:
what is kept of routed versions serves.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import ConfigSource
from gateway.serving.intents import Intents, IntentStore
from gateway.serving.repository import ModelRepository
from gateway.serving.view import RepositoryView, blind_view, read_view
from gateway.threads import DaemonThread, started_threads
from loaders.store import ContentStore

T = TypeVar("T")
FIRST_LOOK_S: Final = 30.0  # several repositories as one wait for each other, but not for so long


def _unchanged(intents: Intents) -> Intents:
    """Returns the intents as they are."""
    return intents


class RepositoryReader:
    """Reads what is there, one look after the other, and changes what operators want, one change after the other."""

    def __init__(
        self,
        repository: ModelRepository,
        intents: IntentStore,
        store: ContentStore | None,
        *,
        first_look_s: float = FIRST_LOOK_S,
    ) -> None:
        self.first_look_s = first_look_s
        self._first_look: asyncio.Task[RepositoryView] | None = None  # that is under way
        self._first_decided = 0  # changes of the intents when it began
        self._silent_since_s: float | None = None  # when the first of the looks began that had no answer in time
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
        change: Callable[[Intents], Intents] = _unchanged,
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
        return self._as_decided(view, decided, change)

    async def next_look(self) -> RepositoryView:
        """Returns as `look`; while nothing was ever listed, what is kept of routed models, once the source
        has been silent for `FIRST_LOOK_S`. The look goes on meanwhile, and is the next one.
        """
        if self._store is None or self._repository.was_listed:
            return await self.look()
        first, store = self._begun_look(), self._store
        loop, decided = asyncio.get_running_loop(), self._first_decided
        silent_s = 0.0 if self._silent_since_s is None else loop.time() - self._silent_since_s
        await asyncio.wait((first,), timeout=max(0.0, self.first_look_s - silent_s))
        if first.done():
            return self._as_decided(await first, decided)
        before = self._decided
        error = FailedPrecondition(f"the model repository has not answered for {self.first_look_s:g} s")
        blind = await loop.run_in_executor(self._deciding, lambda: blind_view(self._intents.read(), store, error))
        return self._as_decided(await first, decided) if first.done() else self._as_decided(blind, before)

    def _begun_look(self) -> "asyncio.Task[RepositoryView]":
        """Returns the first look, which begins now if none is under way."""
        if self._first_look is None:
            begun_s = asyncio.get_running_loop().time()
            self._first_look = asyncio.create_task(self.look(), name="first look")
            self._first_look.add_done_callback(partial(self._looked, begun_s))
            self._first_decided = self._decided
            if self._silent_since_s is None:
                self._silent_since_s = begun_s
        return self._first_look

    def _looked(self, begun_s: float, first: "asyncio.Task[RepositoryView]") -> None:
        self._first_look = None
        if first.get_loop().time() - begun_s < self.first_look_s:
            self._silent_since_s = None  # an answer in time, if only an error: the next one is waited for, too
        if not first.cancelled():
            first.exception()  # whoever still waits gets it

    def _as_decided(
        self, view: RepositoryView, decided: int, change: Callable[[Intents], Intents] = _unchanged
    ) -> RepositoryView:
        """Returns the view with the newest intents, if they were changed since there were so many changes.

        Whoever waited for a task resumes turns after it: what was decided in between holds, too.
        """
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
        if self._first_look is not None:
            self._first_look.cancel()
        self.threads.shutdown(wait=False)
        self._deciding.shutdown(wait=False)
