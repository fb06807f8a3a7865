"""Keeps the directory of callers at what its files and its issuer say, beside the requests.

1. What is new is read whole and checked before it takes the old one's place: a broken or missing file changes nothing
   but `trouble`. A file counts once nobody has written it for a look. One that is replaced all the time, by a rename,
   which is whole, counts as well once two in a row say the same. So half of one does only where who writes it in
   place rests in the midst of it for a look. One that is another at each look for long is in trouble.
2. What was sound is kept on disk as well, so that a worker which starts while a file is broken, or while the issuer is
   away, knows who everybody is. It is kept by where it came from: what another file or issuer said counts no more, and
   goes as soon as this one has said something sound.
3. The issuer's keys are fetched now and then, and at once for a token that names a key which is not known, but never
   more often than the least time between two tries. Whatever an issuer answers, and however slowly, files are read
   meanwhile: a token that was revoked is not good for longer. A fetch without an end is left to itself on its thread,
   and another begins, while few have been left. For the same reason files are read by a thread that does nothing else.
"""

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

from gateway.access.denials import LOG_EVERY_S, Denials
from gateway.access.directory import Directory
from gateway.access.gatekeeper import Gatekeeper
from gateway.access.json_web_token import NO_KEYS, ExpectedClaims, SigningKeys, parse_keys
from gateway.access.key_fetch import LIMIT_S, fetch_beside
from gateway.access.roles_file import EVERYONE, Roles, parse_roles
from gateway.access.token_file import NO_TOKENS, StaticTokens, parse_tokens
from gateway.errors import InvalidArgument
from gateway.threads import started_threads

LOOK_S: Final = 1.0
FETCH_S: Final = 300.0
RETRY_S: Final = 10.0
_PATIENCE_S: Final = 0.25  # of a look with a fetch under way
_MOST_FETCHES: Final = 8  # at once, with those that were given up
_RESTLESS_LOOKS: Final = 10
_FILE_LIMIT_BYTES: Final = 4 << 20
_SOURCE_DIGITS: Final = 16  # of the digest that tells sources apart
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AccessFiles:
    """Where callers are known from; `keys` is the path or the URL of a JWKS document, of the issuer of `expected`."""

    tokens: Path | None = None
    roles: Path | None = None
    keys: str = ""
    expected: ExpectedClaims | None = None

    @property
    def keys_url(self) -> str:
        return self.keys if "://" in self.keys else ""


class Watched(Generic[_T]):
    """The newest sound content of one file, or of what was fetched; `trouble` says what is wrong with the newest."""

    def __init__(self, what: str, parse: Callable[[str], _T], kept: Path | None) -> None:
        self.trouble = ""
        self._what = what
        self._parse = parse
        self._kept = kept
        self._text: str | None = None
        self._seen: _Mark | None = None
        self._taken: _Mark | None = None
        self._glimpse: bytes | None = None  # what a file says that has replaced another since the look before
        self._restless = 0  # looks in a row that each met another file
        self.value: _T | None = None

    def restore(self) -> None:
        """Takes what an earlier process kept, if nothing better is there; says so where something is wrong."""
        if self.value is None and self._kept is not None:
            try:
                self.value = self._parse(_text_of(_read(self._kept)))
            except (InvalidArgument, OSError):
                return
            if self.trouble:
                _log.warning("%s: going on with what was last read of it", self._what)

    def take(self, text: str) -> bool:
        """Makes the text the content if it is sound; returns whether anything is different then."""
        if text == self._text and not self.trouble:
            return False
        try:
            value = self._parse(text)
        except InvalidArgument as error:
            self.complain(str(error))
            return False
        changed, self._text, self.trouble = text != self._text, text, ""
        if changed:
            self.value = value
            self._keep(text)
        return changed

    def look(self, path: Path, *, first: bool = False) -> bool:
        """Reads the file if it was written since, and nobody writes it now; returns whether it says something new."""
        try:
            before, mark = self._seen, _mark_of(path)
            self._seen = mark
            if not first and mark == self._taken:
                return False
            if not first and mark != before and not self._settles(path, before, mark):
                return False
            content = _read(path)
            self._seen = _mark_of(path)
            if not first and self._seen != mark:  # written meanwhile
                return False
            self._glimpse, self._restless = None, 0
            text = _text_of(content)
        except OSError as error:
            self._seen = self._taken = None
            self.complain(f"cannot be read: {error.strerror}")
            return False
        except InvalidArgument as error:
            self.complain(str(error))
            return False
        self._taken = mark
        return self.take(text)

    def _settles(self, path: Path, before: "_Mark | None", mark: "_Mark") -> bool:
        """Returns whether a file that replaced another since the last look says what that one did, that had as well.

        One that was written in place may be half of one, and the same half at two looks. Raises: OSError.
        """
        glimpse = _read(path) if before is None or mark.inode != before.inode else None
        if glimpse is not None and glimpse == self._glimpse:
            return True
        self._glimpse = glimpse
        self._restless += 1
        if self._restless >= _RESTLESS_LOOKS:
            self.complain(
                "is another at each look: it counts once nobody has written it for a second; write a whole one beside"
                " it, and rename that"
            )
        return False

    def complain(self, trouble: str) -> None:
        trouble = f"{self._what}: {trouble}"
        if trouble != self.trouble:
            self.trouble = trouble
            _log.error("%s%s", trouble, "" if self.value is None else "; what was in force stays")

    def _keep(self, text: str) -> None:
        if self._kept is None:
            return
        staged = self._kept.with_name(f"{self._kept.name}.{os.getpid()}")
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            staged.touch(0o600)
            staged.write_text(text, encoding="utf-8")
            staged.replace(self._kept)
            _remove_others(self._kept)
        except OSError as error:
            _log.warning("%s was not kept for a restart: %s", self._what, error.strerror)


_AnyWatched = Watched[StaticTokens] | Watched[Roles] | Watched[SigningKeys]


class Entrance:
    """The gatekeeper of a process, and what keeps it up to date.

    Raises: InvalidArgument if a file holds nothing sound, and nothing sound of it was kept.
    """

    def __init__(
        self, files: AccessFiles, *, wall_s: Callable[[], float], monotonic_s: Callable[[], float], kept: Path | None
    ) -> None:
        self._files = files
        self._monotonic_s = monotonic_s
        self.denials = Denials()
        self._tokens: Watched[StaticTokens] = Watched(
            "access-tokens", parse_tokens, kept_path(kept, "tokens", files.tokens)
        )
        self._roles: Watched[Roles] = Watched("access-roles", parse_roles, kept_path(kept, "roles", files.roles))
        self._keys: Watched[SigningKeys] = Watched("jwt-keys", parse_keys, kept_path(kept, "keys", files.keys))
        self._fetch_at_s = 0.0
        self._tried_s = float("-inf")
        self._wanted = False
        self._fetching: asyncio.Future[tuple[str, str]] | None = None
        self._left: list[asyncio.Future[tuple[str, str]]] = []  # without an answer in time
        self._told_s = monotonic_s()
        self._reading = started_threads(1, "entrance")
        self._look(first=True)
        for watched, path in self._by_path():
            watched.restore()
            if path is not None and watched.value is None:
                raise InvalidArgument(f"{watched.trouble} ({path}); nothing sound of it was read before")
        self._keys.restore()
        self.gatekeeper = Gatekeeper(self._directory(), wall_s=wall_s, unknown_key=self._want_keys)

    @property
    def trouble(self) -> str:
        """What is wrong with what the files say now; "" if nothing is."""
        return "; ".join(one.trouble for one in (self._tokens, self._roles, self._keys) if one.trouble)

    def denied(self) -> Mapping[str, int]:
        """Returns how many callers were refused, by why."""
        return self.denials.counts

    def status(self) -> dict[str, object]:
        """Returns, for gauges and events, what is wrong, and who was refused."""
        return {"trouble": self.trouble, "told": self.denials.told()}

    async def prepare(self) -> None:
        """Fetches the issuer's keys once, where none are known; waits for them for a few seconds at most."""
        if self._files.keys_url and self._keys.value is None:
            await self._step(LIMIT_S)

    async def follow(self) -> None:
        """Looks, fetches and tells, for ever."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_S)

    async def step(self) -> bool:
        """Looks once; returns whether callers are admitted by something new."""
        return await self._step(_PATIENCE_S)

    async def _step(self, patience_s: float) -> bool:
        now_s = self._monotonic_s()
        changed = await asyncio.get_running_loop().run_in_executor(self._reading, self._look)
        wanted = self._wanted and now_s >= self._tried_s + RETRY_S
        if self._fetching is None and self._files.keys_url and (wanted or now_s >= self._fetch_at_s):
            self._wanted = False
            self._tried_s = now_s
            self._fetching = self._begun()
        if self._fetching is not None:
            changed |= await self._fetched(self._fetching, patience_s)
        if changed:
            self.gatekeeper.replace(self._directory())
            _log.info("who may call was read anew")
        if now_s >= self._told_s + LOG_EVERY_S:
            self._told_s = now_s
            self.denials.tell()
        return changed

    def _want_keys(self) -> None:
        self._wanted = True

    def _by_path(self) -> "tuple[tuple[_AnyWatched, Path | None], ...]":
        files = self._files
        keys = Path(files.keys) if files.keys and not files.keys_url else None
        return (self._tokens, files.tokens), (self._roles, files.roles), (self._keys, keys)

    def _look(self, *, first: bool = False) -> bool:
        changes = [watched.look(path, first=first) for watched, path in self._by_path() if path is not None]
        return any(changes)

    def _begun(self) -> "asyncio.Future[tuple[str, str]] | None":
        """Returns a fetch under way; None where too many that were left have no end."""
        self._left = [one for one in self._left if not one.done()]
        return fetch_beside(self._files.keys_url) if len(self._left) < _MOST_FETCHES - 1 else None

    async def _fetched(self, fetching: "asyncio.Future[tuple[str, str]]", patience_s: float) -> bool:
        """Takes what the issuer has answered, if it has by then; returns whether there are other keys."""
        await asyncio.wait([fetching], timeout=patience_s)
        if not fetching.done():
            if self._monotonic_s() >= self._tried_s + RETRY_S:
                self._keys.complain(f"cannot be fetched: there is no whole answer after {RETRY_S:g} s")
                self._left.append(fetching)
                self._fetching = None
                self._fetch_at_s = self._tried_s + RETRY_S
            return False
        self._fetching, (text, trouble) = None, fetching.result()
        loop = asyncio.get_running_loop()
        changed = not trouble and await loop.run_in_executor(self._reading, self._keys.take, text)
        if trouble:
            self._keys.complain(f"cannot be fetched: {trouble}")
        self._fetch_at_s = self._tried_s + (RETRY_S if self._keys.trouble else FETCH_S)
        return changed

    def _directory(self) -> Directory:
        files = self._files
        nothing = files.tokens is None and files.roles is None and files.expected is None
        roles = self._roles.value or (EVERYONE if nothing else Roles())
        return Directory(
            self._tokens.value or NO_TOKENS, roles, self._keys.value or NO_KEYS, files.expected, self.denials
        )


class _Mark(NamedTuple):
    """What tells whether a file was written since."""

    modified_ns: int
    size: int
    inode: int


def _mark_of(path: Path) -> _Mark:
    """Raises: OSError."""
    about = path.stat()
    return _Mark(about.st_mtime_ns, about.st_size, about.st_ino)


def _read(path: Path) -> bytes:
    """Returns what is in the file, of a large one more than is allowed. Raises: OSError."""
    with path.open("rb") as file:
        return file.read(_FILE_LIMIT_BYTES + 1)


def _text_of(content: bytes) -> str:
    """Raises: InvalidArgument for what is too large, or no text."""
    if len(content) > _FILE_LIMIT_BYTES:
        raise InvalidArgument(f"more than {_FILE_LIMIT_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidArgument("the text is not UTF-8") from None


def kept_path(directory: Path | None, name: str, source: Path | str | None) -> Path | None:
    """Returns the file that keeps what came from there, and from nowhere else."""
    if directory is None:
        return None
    return directory / f"{name}-{hashlib.sha256(str(source).encode()).hexdigest()[:_SOURCE_DIGITS]}"


def _remove_others(kept: Path) -> None:
    """Removes what was kept of the same kind from elsewhere, or without saying whence. Raises: OSError."""
    kind = kept.name.rpartition("-")[0]
    of_kind = re.compile(rf"{re.escape(kind)}(-[0-9a-f]{{{_SOURCE_DIGITS}}})?")
    for other in kept.parent.iterdir():
        if other.name != kept.name and of_kind.fullmatch(other.name) and other.is_file():
            other.unlink(missing_ok=True)
