"""The audit trail in the store: reading who changed what, and recording what changes something outside the store."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.errors import InvalidArgument
from gateway.routing.document.field import shown
from gateway.routing.store.audit_chain import HEALED, AuditEntry, ChainLink, RouteInForce
from gateway.routing.store.change import TEXT_LIMIT, Change, ChangeEntry, parse_entry
from gateway.routing.store.redis_store import AUDIT_LENGTH, IDEMPOTENCY_S, ONCE_S, RedisStore
from gateway.routing.store.store_reply import committed_digest, many, number, revision_in, stream_entries, text
from gateway.routing.store.store_script import AUDIT

LIMIT_DEFAULT = 50
LIMIT = 1000
PAGE = 200
_SIGHT_TRIES = 5
# What changes something that is no route: outside the store, or the state of a rollout.
OUTSIDE = (
    *("model.load", "model.unload", "version.replaced"),
    *("rollout.pause", "rollout.resume", "rollout.approve", "rollout.abort", "rollout.offline"),
)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_FIELDS = (
    *("sequence", "op", "model", "revision", "prev", "restored", "document"),
    *("actor", "reason", "source", "at", "detail", "before", "hash"),
)


@dataclass(frozen=True, slots=True)
class ChainPage:
    """A part of the chain, oldest first; `anchor` is what it follows, `head` the newest entry that was recorded."""

    entries: tuple[AuditEntry, ...]
    anchor: ChainLink
    head: ChainLink


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a worker compares with its note: the newest entry, the hash of the noted one, "" where it is not there, the
    newest of those that are no longer kept, and the newest heal, None where none is kept."""

    head: ChainLink
    at_noted: str
    trimmed: ChainLink
    heal: AuditEntry | None


async def append(
    store: RedisStore, operation: str, *, model: str, detail: str = "", change: Change, once: str = ""
) -> int:
    """Records what is about to be changed outside the store; returns the entry's sequence.

    Call it before the change, and leave the change where it raises: what cannot be recorded is not done. With `once`
    the same text again within a day records nothing and answers the first sequence, so that all workers may tell.
    Raises: StoreUnavailable; InvalidArgument for an operation that is not in `OUTSIDE`, or a detail that is too long.
    """
    if operation not in OUTSIDE:
        raise InvalidArgument(f"operation: {shown(operation)} is not one of {', '.join(OUTSIDE)}")
    if len(detail.encode()) > TEXT_LIMIT:
        raise InvalidArgument(f"detail: {len(detail.encode())} bytes, at most {TEXT_LIMIT} are allowed")
    names = store.keys
    keys = [names.audit, names.chain, names.recorded(once or change.remembered_as)]
    seconds = IDEMPOTENCY_S if once or change.idempotency_key else ONCE_S
    who = (change.actor, change.reason, change.source)
    answer, _ = await store.link.written(AUDIT, keys, [operation, model, *who, detail, AUDIT_LENGTH, seconds])
    return number(answer[1])


async def chain(store: RedisStore, *, after: int = 0, limit: int = LIMIT) -> ChainPage:
    """Returns the entries after sequence `after`, at most `limit`. Raises: InvalidArgument; StoreUnavailable."""
    if not 1 <= limit <= LIMIT or after < 0:
        raise InvalidArgument(f"limit: {limit} is not 1 to {LIMIT}, or after: {after} is negative")
    names = store.keys
    fields = ("sequence", "hash", "trimmed_sequence", "trimmed_hash")
    above = f"({after}-{2**63}" if after else "-"
    held, ids = await store.link.transaction(
        [("HMGET", names.chain, *fields), ("XRANGE", names.audit, above, "+", "COUNT", limit)]
    )
    sequence, hash_, trimmed, trimmed_hash = many(held)
    entries = tuple(_entry(entry_id, words) for entry_id, words in stream_entries(ids))
    return ChainPage(entries, ChainLink(number(trimmed), text(trimmed_hash)), ChainLink(number(sequence), text(hash_)))


async def chain_and_routes(
    store: RedisStore, *, after: int = 0, limit: int = LIMIT
) -> tuple[ChainPage, list[RouteInForce]]:
    """Returns a page of the chain and, with its last one, the routes in force, each of which was recorded by then.

    Raises: as `chain`.
    """
    page = await chain(store, after=after, limit=limit)
    if len(page.entries) >= limit:
        return page, []
    # What is committed between the two looks has an entry this way; the other way it is a route without one.
    routes = await routes_in_force(store)
    page = await chain(store, after=after, limit=limit)
    return page, routes if len(page.entries) < limit else []


async def sight(store: RedisStore, noted: int) -> Sighting:
    """Returns what there is of the trail now. Raises: StoreUnavailable."""
    names = store.keys
    fields = ("sequence", "hash", "trimmed_sequence", "trimmed_hash", "healed")
    told = await store.link.call("HGET", names.chain, "healed")
    for _ in range(_SIGHT_TRIES):
        healed = text(told)
        healed_at = healed if _NUMBER.fullmatch(healed) else "1"  # older releases noted none
        held, at_noted, at_healed = await store.link.transaction(
            [
                ("HMGET", names.chain, *fields),
                ("XRANGE", names.audit, f"{noted}-0", f"{noted}-0"),
                ("XRANGE", names.audit, f"{healed_at}-0", f"{healed_at}-0"),
            ]
        )
        sequence, hash_, trimmed, trimmed_hash, told = many(held)
        if text(told) == healed:  # else somebody has healed the store meanwhile, and that explains what is there
            break
    heals = [_entry(entry_id, words) for entry_id, words in stream_entries(at_healed)]
    return Sighting(
        ChainLink(number(sequence), text(hash_)),
        next((_entry(entry_id, words).hash for entry_id, words in stream_entries(at_noted)), ""),
        ChainLink(number(trimmed), text(trimmed_hash)),
        next((entry for entry in heals if entry.operation in HEALED), None),
    )


async def routes_in_force(store: RedisStore) -> list[RouteInForce]:
    """Returns what the store holds as routes, to be compared with what was recorded. Raises: StoreUnavailable."""
    texts = (await store.state()).texts
    return [RouteInForce(model, revision_in(held or ""), committed_digest(held)) for model, held in texts.items()]


async def audit(store: RedisStore, *, limit: int = 0, model: str = "", actor: str = "") -> list[AuditEntry]:
    """Returns the newest changes, at most `limit` (50 unless told), of one model and of one actor if they are named.

    The trail keeps the newest 20 000. Changes of routes from before it began follow from the log, with sequence 0.
    Raises: InvalidArgument; StoreUnavailable.
    """
    if not 0 <= limit <= LIMIT:
        raise InvalidArgument(f"limit: {limit} is not 1 to {LIMIT} (0: {LIMIT_DEFAULT})")
    wanted = limit or LIMIT_DEFAULT
    entries: list[AuditEntry] = []
    revision = 0
    below = "+"
    while len(entries) < wanted:
        page = stream_entries(await store.link.call("XREVRANGE", store.keys.audit, below, "-", "COUNT", PAGE))
        for entry_id, words in page:
            entry = _entry(entry_id, words)
            revision = entry.revision or revision
            if not entry.unreadable and model in ("", entry.model) and actor in ("", entry.actor):
                entries.append(entry)
        if len(page) < PAGE:
            break
        below = f"({page[-1][0]}"
    below = f"({revision}-0" if revision else "+"
    while len(entries) < wanted:
        page = stream_entries(await store.link.call("XREVRANGE", store.keys.log, below, "-", "COUNT", PAGE))
        changes = [change for change in (_change(*entry) for entry in page) if change is not None]
        entries += [_unchained(one) for one in changes if model in ("", one.model) and actor in ("", one.actor)]
        if len(page) < PAGE:
            break
        below = f"({page[-1][0]}"
    return entries[:wanted]


def _entry(entry_id: str, words: Sequence[bytes]) -> AuditEntry:
    sequence = int(entry_id.partition("-")[0])
    try:
        texts = [word.decode() for word in words]
        values: Mapping[str, str] = dict(zip(texts[::2], texts[1::2], strict=True))
        if tuple(texts[::2]) != _FIELDS or entry_id != f"{values['sequence']}-0":
            raise ValueError("its fields are others")
        numbers = {name: int(values[name]) for name in ("revision", "prev", "restored", "at")}
        if any(str(value) != values[name] for name, value in numbers.items()):
            raise ValueError("a number is written in another way")
    except ValueError as error:
        return AuditEntry(sequence, "", "", 0, 0, 0, "", "", "", "", 0, "", "", "", unreadable=str(error))
    return AuditEntry(
        sequence=sequence,
        operation=values["op"],
        model=values["model"],
        revision=numbers["revision"],
        previous_revision=numbers["prev"],
        restored_revision=numbers["restored"],
        document=values["document"],
        actor=values["actor"],
        reason=values["reason"],
        source=values["source"],
        at_us=numbers["at"],
        detail=values["detail"],
        before=values["before"],
        hash=values["hash"],
    )


def _change(entry_id: str, words: Sequence[bytes]) -> ChangeEntry | None:
    try:
        return parse_entry(entry_id, words)
    except InvalidArgument:
        return None


def _unchained(change: ChangeEntry) -> AuditEntry:
    return AuditEntry(
        sequence=0,
        operation=change.operation,
        model=change.model,
        revision=change.revision,
        previous_revision=change.previous_revision,
        restored_revision=change.restored_revision,
        document="",
        actor=change.actor,
        reason=change.reason,
        source=change.source,
        at_us=change.committed_at_us,
        detail="",
        before="",
        hash="",
    )
