"""The answers of the routing store, as values: replies of the protocol in, typed values or StoreUnavailable out."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.errors import StoreDamaged, StoreUnavailable
from gateway.routing.decision.snapshot import Route
from gateway.routing.document.canonical import canonical_json

Reply: TypeAlias = "bytes | int | list[Reply] | None"

# What the store writes in front of a route's own fields when it commits it.
_STORE_FIELDS = ("revision", "previous_revision", "committed_at_us")
_REVISION = re.compile(r'\{"revision":(\d{1,15}),')
_COMMITTED = re.compile(r'\{"revision":\d{1,15},"previous_revision":\d+,"committed_at_us":\d+,')
_WRAP = 2**48


@dataclass(frozen=True, slots=True)
class StoreState:
    """The store at one moment. A route's text is None where it is too large to be read; `digest` is over all texts.

    `epoch` is "" and `revision` 0 where nothing was ever committed, or everything was lost.
    """

    epoch: str
    revision: int
    accepted: str
    digest: str = ""
    texts: Mapping[str, str | None] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Current:
    """Holds what a caller must know to propose a change of one model's route.

    `text` is "" and `revision` 0 without a route; `store` is the identity of the store, without its routes.
    """

    store: StoreState
    revision: int
    text: str

    @property
    def epoch(self) -> str:
        return self.store.epoch


@dataclass(frozen=True, slots=True)
class Applied:
    """Holds who follows a revision. `laggards` had not acknowledged in time; `errors` says why, where a worker said so.

    `final`: waiting longer changes nothing, because everybody follows or has refused.
    """

    workers: tuple[str, ...] = ()
    laggards: tuple[str, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)
    final: bool = False


def loss(epoch: str, head: int, store: StoreState) -> str:
    """Returns what the store has lost of what a worker at `head` of `epoch` knows; "" if it can be followed."""
    if not epoch or (store.epoch and store.accepted == store.epoch and store.epoch != epoch):
        return ""
    if store.epoch == epoch:
        return "" if store.revision >= head else f"the store is at revision {store.revision}, this worker at {head}"
    if not store.epoch:
        return "the store is empty"
    return f"the store has epoch {store.epoch[:64]!r}, this worker follows {epoch!r}"


def many(reply: Reply) -> list[Reply]:
    """Raises: StoreUnavailable if the reply is no list."""
    if not isinstance(reply, list):
        raise StoreUnavailable("the routing store gave an answer of another form")
    return reply


def text(reply: Reply) -> str:
    """The reply as text, "" for none. Raises: StoreUnavailable if it is no text."""
    if reply is None or isinstance(reply, int):
        return "" if reply is None else str(reply)
    if not isinstance(reply, bytes):
        raise StoreUnavailable("the routing store gave an answer of another form")
    try:
        return reply.decode()
    except UnicodeDecodeError:
        raise StoreDamaged("the routing store is damaged: a value is not UTF-8") from None


def number(reply: Reply) -> int:
    """The reply as a revision, 0 for none. Raises: StoreUnavailable if it is no number."""
    digits = text(reply)
    if digits and not (digits.isascii() and digits.isdecimal() and len(digits) <= 15):
        raise StoreDamaged(f"the routing store is damaged: {digits[:40]!r} is not a revision; `gateway heal` mends it")
    return int(digits or 0)


def stream_entries(reply: Reply) -> list[tuple[str, list[bytes]]]:
    """(id, fields and values) of a range of a stream."""
    entries: list[tuple[str, list[bytes]]] = []
    for entry in many(reply):
        entry_id, fields = many(entry)
        entries.append((text(entry_id), [word for word in many(fields or []) if isinstance(word, bytes)]))
    return entries


def read_entries(reply: Reply) -> list[tuple[str, list[bytes]]]:
    """The same of an XREAD of one stream; none if it timed out."""
    return [] if reply is None else stream_entries(many(many(reply)[0])[1])


def store_state(answer: list[Reply]) -> StoreState:
    """The state that snapshot.lua answered. Bytes that are not UTF-8 stay what they are, as surrogates."""
    texts: dict[str, str | None] = {}
    sizes: dict[str, int] = {}
    for model, value, size in zip(answer[4::3], answer[5::3], answer[6::3], strict=True):
        if isinstance(model, bytes) and isinstance(size, int):
            name = model.decode("utf-8", "surrogateescape")
            texts[name] = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else None
            sizes[name] = size
    return StoreState(text(answer[0]), number(answer[1]), text(answer[2]), text(answer[3]), texts, sizes)


def store_identity(answer: Reply) -> StoreState:
    """The state without its routes, from an MGET of epoch, revision and accepted epoch."""
    epoch, revision, accepted = many(answer)
    return StoreState(text(epoch), number(revision), text(accepted))


def fingerprint(model: str, value: str | None, size: int = 0) -> tuple[int, int]:
    """Returns what one route adds to a store's digest (snapshot.lua computes the same)."""
    content = f"size {size}" if value is None else value
    digest = hashlib.sha1(f"{model}\0{content}".encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
    return int(digest[:12], 16), int(digest[12:24], 16)


def digest_of(fingerprints: Mapping[str, tuple[int, int]]) -> str:
    """The digest of a store that holds routes with these fingerprints."""
    low = sum(pair[0] for pair in fingerprints.values()) % _WRAP
    high = sum(pair[1] for pair in fingerprints.values()) % _WRAP
    return f"{low}-{high}"


def route_body(route: Route | None) -> str:
    """The route's JSON without its brace and without what only the store knows; "" for none."""
    if route is None:
        return ""
    own = {name: value for name, value in route.to_value().items() if name not in _STORE_FIELDS}
    return canonical_json(own)[1:]


def text_digest(document: str) -> str:
    """The SHA-256 by which the audit trail knows a route or a document; "" for none."""
    return hashlib.sha256(document.encode("utf-8", "surrogateescape")).hexdigest() if document else ""


def committed_digest(route_text: str | None) -> str:
    """The same of a committed route, which begins with what the store has added; of nothing for what is no route."""
    added = _COMMITTED.match(route_text or "")
    return text_digest((route_text or "")[added.end() :] if added else " ")


def committed_text(route: Route) -> str:
    """The whole text under which the store holds a committed route (commit.lua writes the same)."""
    head = f'{{"revision":{route.revision},"previous_revision":{route.previous_revision},'
    return f'{head}"committed_at_us":{route.committed_at_us},{route_body(route)}'


def revision_in(route_text: str) -> int:
    """The revision that the store gave a route, 0 for a text that is none (commit.lua judges the same way)."""
    match = _REVISION.match(route_text)
    return int(match[1]) if match else 0
