"""Several repositories as one: each model is that of the first repository that has it.

1. Repositories are numbered from 1 in the order in which they were named. A name that an earlier one has is refused of
   the later ones, which the listing says.
2. A repository that cannot be listed, or that holds nothing any more, keeps the names that it had: no model of a later
   one takes the place of what serves. Those of the others are listed as always.
3. A repository that could not be listed yet since this process began has no names: nobody knows them.
4. One that does not answer holds up the looks at the others once: it is away until it has answered on a thread of its
   own, where nobody waits for it. The first look waits for all of them together. Meanwhile it is asked nothing else
   either; content that is known by its digest comes from the store, which all share. One that lists what it has, and
   fails only after long to hand out what a look needs of a model, is away for the rest of that look.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Final, TypeVar

from loaders.errors import LoaderError, SourceNotFound, SourceUnreadable
from loaders.loader import Listing, Loader, LocalVersion
from loaders.store import ContentStore

T = TypeVar("T")
_NOTHING_LEFT: Final = (
    "it holds no model any more, it had {count}: is its volume mounted? (RepositoryModelUnload takes a model away)"
)


_QUICK_S: Final = 5.0  # whoever fails sooner may be asked by each look
_FIRST_S: Final = 20.0


class RepositoryPing:
    """Asks a repository on a thread of its own for what it has; `error` is why nothing is known of it meanwhile."""

    def __init__(self, loader: Loader, error: LoaderError) -> None:
        self._loader = loader
        self.error = error
        self._failed_late = False
        self._thread = self._begun()

    def is_silent(self, wait_s: float) -> bool:
        """Whether it has not answered, for so much longer, or only failed after long; then it is asked again."""
        if self._thread is not None:
            self._thread.join(wait_s)
            if self._thread.is_alive():
                return True
            if not self._failed_late:
                return False
        self._thread = self._begun()
        return True

    def _begun(self) -> threading.Thread | None:
        """Returns the thread that asks; None where the system starts no more: it is silent until it could be asked."""
        thread = threading.Thread(target=self._ask, name="repository ping", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self.error = SourceUnreadable("it could not be asked: the system starts no more threads")
            return None
        return thread

    def _ask(self) -> None:
        began_s = monotonic()
        try:
            self._loader.models()
            self._failed_late = False
        except LoaderError as error:
            self.error = error
            self._failed_late = monotonic() - began_s > _QUICK_S


class RepositoryUnion:
    """The loader of several repositories, by their URIs in the order of precedence, with the store of all of them."""

    def __init__(
        self,
        loaders: Mapping[str, Loader],
        store: ContentStore,
        *,
        first_s: float = _FIRST_S,
        quick_s: float = _QUICK_S,
    ) -> None:
        self._loaders: Final = tuple(loaders.values())
        self._store = store
        self._first_s = first_s
        self._quick_s = quick_s
        self._pings: dict[int, RepositoryPing] | None = None  # of those that have not answered; None before the first
        self._names: tuple[tuple[str, ...], ...] = ((),) * len(loaders)  # of each, as it was listed last
        self._owners: Mapping[str, int] = {}
        self._held = threading.local()  # the errors of those that this thread could not look at within `one_look`

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Looks at each repository once. Raises: as `models`, where none of them can be read."""
        with ExitStack() as stack:
            pings, away = self._silent()
            for number, loader in enumerate(self._loaders):
                if number in away:
                    continue
                began_s = monotonic()
                try:
                    stack.enter_context(loader.one_look())
                except LoaderError as error:
                    away[number] = error
                    if monotonic() - began_s > self._quick_s:
                        pings = self._pings = {**pings, number: RepositoryPing(loader, error)}  # others read it
            self._check_any(away)
            self._held.away = away
            try:
                yield
            finally:
                del self._held.away

    def models(self) -> Listing:
        """Returns the models of all repositories. Raises: SourceNotFound, SourceUnreadable, if none can be listed."""
        away = dict(self._away())
        listings = [self._listing_of(number, away) for number in range(len(self._loaders))]
        self._check_any(away)
        owners: dict[str, int] = {}
        refused: dict[str, str] = {}
        wanted: set[str] = set()  # of those, what somebody may have meant as a model
        listed: list[str] = []
        for number, listing in enumerate(listings):
            wanted |= listing.refused.keys() - listing.beside
            for name, reason in listing.refused.items():
                _add(refused, name, f"{reason} (in {_shown(number)})")
            for name in listing.names:
                owner = owners.setdefault(name, number)
                if owner != number:
                    wanted.add(name)
                    _add(refused, name, f"{_shown(number)} has it as well, {_shown(owner)} has precedence")
                elif number not in away:
                    listed.append(name)
        self._names = tuple(listing.names for listing in listings)
        self._owners = owners
        unreadable = {self._origin_at(number): f"{_shown(number)}: {error}" for number, error in away.items()}
        return Listing(tuple(sorted(listed)), refused, unreadable, beside=frozenset(refused.keys() - wanted))

    def origin(self, model: str) -> str:
        """Returns the URI of the first repository that has the model; of one that is listed without asking."""
        number = self._owners.get(model)
        if number is not None:
            return self._origin_at(number)
        try:
            return self._asked(model, lambda loader: loader.origin(model))
        except LoaderError:
            return ""

    def versions(self, model: str) -> Listing:
        """Returns the versions of the model's repository. Raises: as `Loader`."""
        return self._asked(model, lambda loader: loader.versions(model))

    def stamp(self, model: str) -> str:
        """Returns the stamp of the model's repository. Raises: as `Loader`."""
        return self._asked(model, lambda loader: loader.stamp(model))

    def fingerprint(self, model: str, version: str) -> str:
        """Returns the fingerprint of the model's repository. Raises: as `Loader`."""
        return self._asked(model, lambda loader: loader.fingerprint(model, version))

    def holds(self, model: str, name: str) -> bool:
        """Whether the model's repository has it."""
        try:
            return self._asked(model, lambda loader: loader.holds(model, name))
        except LoaderError:
            return False

    def read(self, model: str, name: str, limit: int) -> bytes:
        """Returns the file of the model's repository. Raises: as `Loader`."""
        return self._asked(model, lambda loader: loader.read(model, name, limit))

    def progress(self, model: str, version: str) -> str:
        """Returns the progress of the model's repository."""
        number = self._owners.get(model)
        return self._loaders[number].progress(model, version) if number is not None else ""

    def digest(self, model: str, version: str) -> str:
        """Returns the digest that the model's repository has now. Raises: as `Loader`."""
        return self._asked(model, lambda loader: loader.digest(model, version))

    def fetch(self, model: str, version: str, *, digest: str | None = None) -> LocalVersion:
        """Returns a copy from the store, if `digest` is of one, else from the model's repository.

        Raises: as `Loader`.
        """
        known = None if digest is None else self._store.get(digest)
        if known is not None:
            return known
        return self._asked(model, lambda loader: loader.fetch(model, version, digest=digest))

    def _silent(self) -> tuple[dict[int, RepositoryPing], dict[int, LoaderError]]:
        """Returns the pings that are under way, and why those repositories are away; others may be looked at."""
        until_s = monotonic()
        if self._pings is None:
            until_s += self._first_s
            error = SourceUnreadable(f"it has not answered for {self._first_s:g} s")
            self._pings = {number: RepositoryPing(loader, error) for number, loader in enumerate(self._loaders)}
        silent = {
            number: ping for number, ping in self._pings.items() if ping.is_silent(max(0.0, until_s - monotonic()))
        }
        self._pings = silent
        return silent, {number: ping.error for number, ping in silent.items()}

    def _asked(self, model: str, ask: Callable[[Loader], T]) -> T:
        number = self._owner(model)
        began_s = monotonic()
        try:
            return ask(self._loaders[number])
        except SourceUnreadable as error:
            away: dict[int, LoaderError] | None = getattr(self._held, "away", None)
            if away is not None and monotonic() - began_s > self._quick_s:
                away[number] = error
            raise

    def _owner(self, model: str) -> int:
        """Returns the first repository that has the model, as at the last listing; a new name is looked for."""
        away = self._away()
        number = self._owners.get(model)
        if number is not None:
            if number in away:
                raise SourceUnreadable(f"{_shown(number)}: {away[number]}")
            return number
        unasked: LoaderError | None = None
        for number, loader in enumerate(self._loaders):
            try:
                if number in away:
                    raise away[number]
                loader.versions(model)
            except SourceNotFound:
                continue
            except SourceUnreadable as error:
                unasked = error
                continue
            return number
        raise unasked or SourceNotFound(f"{model[:80]!a} is not there")

    def _listing_of(self, number: int, away: dict[int, LoaderError]) -> Listing:
        """Returns what the repository lists; of one that is away, which is noted, the names that it had."""
        known = self._names[number]
        try:
            if number in away:
                return Listing(known, {})
            listing = self._loaders[number].models()
            if known and not listing.names:
                raise SourceUnreadable(_NOTHING_LEFT.format(count=len(known)))
        except LoaderError as error:
            away[number] = error
            return Listing(known, {})
        return listing

    def _origin_at(self, number: int) -> str:
        return self._loaders[number].origin("")

    def _check_any(self, away: Mapping[int, LoaderError]) -> None:
        if len(away) == len(self._loaders):
            raise next(iter(away.values()))

    def _away(self) -> Mapping[int, LoaderError]:
        """Returns why repositories are not to be asked: by this thread's look, or else because they are silent."""
        away: Mapping[int, LoaderError] | None = getattr(self._held, "away", None)
        return {number: ping.error for number, ping in (self._pings or {}).items()} if away is None else away


def _shown(number: int) -> str:
    return f"model repository {number + 1}"


def _add(reasons: dict[str, str], name: str, reason: str) -> None:
    reasons[name] = f"{reasons[name]}; {reason}" if name in reasons else reason
