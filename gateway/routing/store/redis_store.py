"""The routing store: what Redis holds, read and written by the side that operators ask."""

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from gateway.errors import InvalidArgument, StaleRevision, StoreDamaged, StoreUnavailable
from gateway.routing.store.audit_chain import KEPT
from gateway.routing.store.change import (
    Change,
    ChangeEntry,
    Committed,
    Healing,
    Proposal,
    Replicas,
    StoreReplaced,
    operation,
    parse_entry,
    shortened,
)
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.store_link import Link, Word
from gateway.routing.store.store_reply import (
    Applied,
    Current,
    Reply,
    StoreState,
    committed_text,
    many,
    number,
    read_entries,
    revision_in,
    route_body,
    store_identity,
    store_state,
    stream_entries,
    text,
    text_digest,
)
from gateway.routing.store.store_script import COMMIT, HEAL, SNAPSHOT
from gateway.routing.store.worker_status import WorkerStatus, parse_status

VALUE_LIMIT_BYTES = 4 * 1024 * 1024
LOG_LENGTH = 10_000
HISTORY_LENGTH = 200
AUDIT_LENGTH = KEPT
IDEMPOTENCY_S = 86_400
ONCE_S = 60  # of a commit whose caller gave no key: long enough for the second try of `Link`
BLOCK_MS = 500
_ANSWER = re.compile(rb"\d{1,15} \d{1,15} \S+ \d+ \d{1,15} \S+ [a-z]+")  # what commit.lua remembers
WORKER_EXPIRE_MS = 15_000


async def read_state(link: Link, keys: StoreKeys, *, routes: bool = True) -> StoreState:
    """The store's state, read atomically; without the routes' texts unless `routes`."""
    names = [keys.epoch, keys.revision, keys.routes, keys.accepted]
    return store_state(await link.script(SNAPSHOT, names, [VALUE_LIMIT_BYTES, "all" if routes else "digest"]))


class RedisStore:
    """The control side of the routing store of one environment.

    Raises: StoreUnavailable from every method while Redis is away, slow, full, read-only or damaged.
    """

    def __init__(self, url: str, environment: str = "default", *, timeout_s: float = 1.5) -> None:
        self.keys = StoreKeys(environment)
        self._link = Link(url, name="gateway-control", timeout_s=timeout_s, twice=True)

    @property
    def link(self) -> Link:
        """The way to the server, for those who read single keys of it."""
        return self._link

    async def aclose(self) -> None:
        await self._link.aclose()

    async def commit(self, proposal: Proposal) -> Committed:
        """The committed change: all of it, or none. The same idempotency key again answers the first commit.

        Raises: StaleRevision (the route is not at `expected_revision`); StoreReplaced (another epoch);
                StoreUnavailable (no answer: the change may have been made, and asking again with the same key is safe).
        """
        model, change = proposal.model, proposal.change
        keys = [self.keys.epoch, self.keys.revision, self.keys.routes, self.keys.log, self.keys.history(model)]
        keys.append(self.keys.idempotency(change.remembered_as or f"once:{uuid.uuid4().hex}"))
        keys += [self.keys.audit, self.keys.chain]
        arguments: list[Word] = [proposal.epoch, uuid.uuid4().hex, model]
        arguments.append("*" if proposal.expected_revision is None else proposal.expected_revision)
        body = route_body(proposal.route)
        arguments += [proposal.operation, body]
        arguments += [change.actor, change.reason, change.source, proposal.restored_revision]
        arguments += [LOG_LENGTH, HISTORY_LENGTH, IDEMPOTENCY_S if change.idempotency_key else ONCE_S]
        arguments += [text_digest(body), AUDIT_LENGTH, change.detail]
        answer, replicas = await self._link.written(COMMIT, keys, arguments)
        match text(answer[0]):
            case "conflict":
                raise StaleRevision(model, proposal.expected_revision or 0, number(answer[1]))
            case "epoch":
                raise StoreReplaced(text(answer[1]))
            case outcome:
                repeated = outcome == "again" and bool(change.idempotency_key)
                return replace(_committed(answer, repeated=repeated), replicas=replicas)

    async def state(self) -> StoreState:
        """Everything, of one moment."""
        return await read_state(self._link, self.keys)

    async def current(self, model: str) -> Current:
        """The store's identity and the model's route; a commit compares both with what it finds then."""
        names = (self.keys.epoch, self.keys.revision, self.keys.accepted)
        held, size = await self._link.transaction([("MGET", *names), ("HSTRLEN", self.keys.routes, model)])
        if number(size) > VALUE_LIMIT_BYTES:
            raise StoreUnavailable(f"the route of {model!r} in {self.keys.routes!r} is too large: {number(size)} bytes")
        value = await self._link.call("HGET", self.keys.routes, model) if number(size) else None
        route_text = value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
        return Current(store_identity(held), revision_in(route_text), route_text)

    async def remembered(self, idempotency_key: str) -> Committed | None:
        """Returns what the first commit with this key answered, for a day."""
        try:
            held = await self._link.call("GET", self.keys.idempotency(idempotency_key))
        except StoreDamaged:
            return None  # a key of another type remembers nothing, and the commit replaces it
        if not isinstance(held, bytes) or not _ANSWER.fullmatch(held):
            return None
        return _committed([b"again", *held.split(b" ")], repeated=True)

    async def history(self, model: str, limit: int = 20) -> list[ChangeEntry]:
        """The model's newest changes, newest first. What a commit did not write is left out."""
        reply = await self._link.call("XREVRANGE", self.keys.history(model), "+", "-", "COUNT", limit)
        return _readable(stream_entries(reply))

    async def now_us(self) -> int:
        """The time by the store's clock, since the epoch."""
        seconds, part = many(await self._link.call("TIME"))
        return number(seconds) * 1_000_000 + number(part)

    async def entry(self, model: str, revision: int) -> ChangeEntry | None:
        """The change that made this revision, if it was one of this model and is still kept."""
        if revision < 1:
            return None  # no change made it, and the store would take the number for no name of an entry
        name = f"{revision}-0"
        entries = _readable(stream_entries(await self._link.call("XRANGE", self.keys.history(model), name, name)))
        return entries[0] if entries else None

    async def workers(self) -> list[WorkerStatus]:
        """Every live worker, by id: one that has acknowledged within the last 15 s and has not left."""
        names = [text(name) for name in many(await self._link.call("ZRANGE", self.keys.workers, 0, -1))]
        if not names:
            return []
        commands: list[Sequence[Word]] = []
        for name in names:
            commands += [("HGETALL", self.keys.worker(name)), ("PTTL", self.keys.worker(name))]
        replies = await self._link.transaction(commands)
        workers = []
        for fields, left_ms in zip(replies[::2], replies[1::2], strict=True):
            words = [word for word in many(fields) if isinstance(word, bytes)]
            if words and isinstance(left_ms, int):
                status = _status(words)
                if status is not None:
                    workers.append(status.seen(max(0, WORKER_EXPIRE_MS - left_ms)))
        return sorted(workers, key=lambda worker: worker.id)

    async def wait_applied(self, revision: int, timeout_s: float, *, epoch: str, somebody: bool = False) -> Applied:
        """Returns who follows the revision, once every live worker does or has said why it cannot, or at the timeout.

        Order: a worker that starts later reads the revision at its start, so it is not waited for; one that dies is
               waited for until its acknowledgement expires. Where no worker is listed but `somebody` is known to
               serve, the list was lost, and the first to acknowledge again is waited for.
        """
        deadline = monotonic() + timeout_s
        last = await self._last_acknowledgement()
        statuses = {status.id: status for status in await self.workers()}
        while True:
            applied = _judge(statuses, revision, epoch)
            left_ms = int((deadline - monotonic()) * 1000)
            final = all(statuses[name].refusal_of(revision, epoch) for name in applied.laggards)
            final = final and (bool(statuses) or not somebody)
            if final or left_ms <= 0:
                return replace(applied, final=final)
            block = ("XREAD", "BLOCK", min(BLOCK_MS, left_ms), "STREAMS", self.keys.acknowledgements, last)
            entries = read_entries(await self._link.call(*block))
            if not entries:
                live = {status.id: status for status in await self.workers()}
                statuses = {name: live[name] for name in statuses if name in live} if statuses else live
            for entry_id, fields in entries:
                last = entry_id
                status = _status(fields)
                if status is not None and status.id in statuses:
                    statuses[status.id] = status

    async def readable_state(self) -> StoreState | None:
        """The state of a store whose identity may be garbage, which then counts as none; None if keys have other types.

        Raises: StoreUnavailable while the store does not answer.
        """
        names = [self.keys.epoch, self.keys.revision, self.keys.routes, self.keys.accepted]
        try:
            answer = await self._link.script(SNAPSHOT, names, [VALUE_LIMIT_BYTES, "all"])
        except StoreDamaged:
            return None
        for index, read in enumerate((text, number, text)):
            try:
                read(answer[index])
            except StoreUnavailable:
                answer[index] = b""
        return store_state(answer)

    async def heal(self, healing: Healing, change: Change) -> tuple[str, int, Replicas]:
        """Epoch and revision of the healed store, and how many replicas have that.

        Raises: StoreReplaced if the store is no longer as it was seen.
        """
        arguments: list[Word] = [healing.operation, healing.seen_epoch, healing.seen_revision]
        arguments += [healing.epoch, healing.revision, change.actor, change.reason, change.source]
        arguments += [self.keys.history(""), self.keys.worker(""), "keep" if healing.keeps_others else "replace"]
        arguments += [AUDIT_LENGTH, shortened("; ".join(healing.findings)), self.keys.draft(""), self.keys.counts("")]
        strangers = [model.encode("utf-8", "surrogateescape") for model in healing.strangers]
        arguments += [len(strangers), *strangers]
        for route in healing.routes:
            arguments += [route.model, committed_text(route), route.revision]
        answer, replicas = await self._link.written(HEAL, list(self.keys.kinds), arguments)
        if text(answer[0]) != "done":
            raise StoreReplaced(text(answer[1]))
        return text(answer[2]), number(answer[1]), replicas

    async def _last_acknowledgement(self) -> str:
        entries = await self._link.call("XREVRANGE", self.keys.acknowledgements, "+", "-", "COUNT", 1)
        return stream_entries(entries)[0][0] if entries else "0-0"


def _committed(answer: Sequence[Reply], *, repeated: bool) -> Committed:
    revision, previous, epoch, at_us, restored, model, word = answer[1:]
    try:
        made = operation(text(word))
    except ValueError as error:
        raise StoreUnavailable(f"the routing store is damaged: a commit's answer names {error}") from None
    return Committed(
        model=text(model),
        operation=made,
        revision=number(revision),
        previous_revision=number(previous),
        epoch=text(epoch),
        committed_at_us=int(text(at_us)),
        restored_revision=number(restored),
        repeated=repeated,
    )


def _readable(entries: Iterable[tuple[str, list[bytes]]]) -> list[ChangeEntry]:
    readable = []
    for entry_id, fields in entries:
        try:
            readable.append(parse_entry(entry_id, fields))
        except InvalidArgument:
            continue
    return readable


def _status(fields: Sequence[bytes]) -> WorkerStatus | None:
    try:
        return parse_status(fields)
    except InvalidArgument:
        return None


def _judge(statuses: Mapping[str, WorkerStatus], revision: int, epoch: str) -> Applied:
    behind = {name: status for name, status in statuses.items() if not status.applied(revision, epoch)}
    errors = {name: status.error_of(revision, epoch) for name, status in behind.items()}
    return Applied(
        workers=tuple(sorted(statuses.keys() - behind.keys())),
        laggards=tuple(sorted(behind)),
        errors={name: error for name, error in errors.items() if error},
    )
