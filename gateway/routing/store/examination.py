"""The examination of a store for what the gateway never wrote and what it has lost; `heal` puts that right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.store.history import readable
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_link import Word
from gateway.routing.store.store_reply import StoreState, loss, many, revision_in, text


@dataclass(frozen=True, slots=True)
class Examination:
    """The store as it is: `epoch` and `revision` byte for byte, so that a healing fails where somebody was faster.

    `state` is None where the routes cannot be read as a whole. `lost` says what the worker knows and the store does
    not, "" for nothing; `findings` are all that is wrong. `unreadable` are the models whose routes are no routes, or
    are gone without a commit.
    """

    epoch: bytes
    revision: bytes
    state: StoreState | None
    lost: str
    findings: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The revision; 0 where it is none."""
        digits = self.revision.decode("ascii", "replace")
        return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 15 else 0


async def examine(store: RedisStore, snapshot: Snapshot) -> Examination:
    """Everything that is wrong with the store, seen from a worker with this snapshot.

    Raises: StoreUnavailable while the store does not answer.
    """
    kinds = dict(store.keys.kinds)
    findings = await _wrong_types(store, kinds)
    readable_words = [name for name in (store.keys.epoch, store.keys.revision) if name not in findings]
    values = {name: await store.link.call("GET", name) for name in readable_words}
    epoch, revision = (_raw(values.get(name)) for name in (store.keys.epoch, store.keys.revision))
    told = [f"{name} holds a {kind}, not a {kinds[name]}" for name, kind in findings.items()]
    lost, unreadable = "", tuple[str, ...]()
    state = await store.readable_state()
    if store.keys.revision in values and revision != b"%d" % (state.revision if state is not None else 0):
        told += [f"{store.keys.revision} holds {revision[:40]!r}, which is no revision"] if revision else []
    if state is not None:
        lost = loss(snapshot.epoch, snapshot.revision, state)
        unreadable = _unreadable(snapshot, state)
        told += [lost] if lost else []
        told += [f"the route of {model!r} is unreadable or gone" for model in unreadable]
        told += await _wrong_trail(store, findings)
        told += await _wrong_members(store, state.texts)
    return Examination(epoch, revision, state, lost, tuple(told), unreadable)


async def _wrong_trail(store: RedisStore, wrong_types: Mapping[str, str]) -> list[str]:
    """Returns why nothing can be recorded in the audit trail (chain.lua judges the same way)."""
    audit, chain = store.keys.audit, store.keys.chain
    if wrong_types.keys() & {audit, chain}:
        return []
    sequence = _raw(await store.link.call("HGET", chain, "sequence"))
    if sequence and not (sequence.isdigit() and len(sequence) <= 15):
        return [f"{chain} holds {sequence[:40]!r}, which is no sequence"]
    if not await store.link.call("EXISTS", audit):
        return []
    if not sequence:
        return [f"{chain} is gone, and {audit} is there"]
    about = many(await store.link.call("XINFO", "STREAM", audit))
    last = _raw(about[about.index(b"last-generated-id") + 1])
    if int(last.partition(b"-")[0]) > int(sequence):
        return [f"{audit} has entry {last.decode()}, beyond the newest that was recorded"]
    return []


def _unreadable(snapshot: Snapshot, state: StoreState) -> tuple[str, ...]:
    routes = {model: readable(route_text) for model, route_text in state.texts.items()}
    broken = {model for model, route in routes.items() if route is None or route.model != model}
    if (state.epoch, state.revision) == (snapshot.epoch, snapshot.revision):
        broken |= snapshot.routes.keys() - state.texts.keys()
    return tuple(sorted(broken))


async def _wrong_types(store: RedisStore, kinds: dict[str, str]) -> dict[str, str]:
    """The keys of another type than ours, with that type."""
    if not kinds:
        return {}
    commands: list[Sequence[Word]] = [("TYPE", name) for name in kinds]
    held = [text(reply) for reply in await store.link.transaction(commands)]
    return {name: kind for name, kind in zip(kinds, held, strict=True) if kind not in ("none", kinds[name])}


async def _wrong_members(store: RedisStore, texts: Mapping[str, str | None]) -> list[str]:
    """The histories, counts, acknowledgements and drafts of another type than ours."""
    keys = store.keys
    kinds = {keys.history(model): "stream" for model in texts if model.isprintable()}
    kinds |= {keys.counts(revision): "hash" for one in texts.values() if (revision := revision_in(one or ""))}
    for members, key_of in ((keys.workers, keys.worker), (keys.drafts, keys.draft)):
        if not await _wrong_types(store, {members: "zset"}):
            names = many(await store.link.call("ZRANGE", members, 0, -1))
            kinds |= {key_of(_raw(name).decode("utf-8", "replace")): "hash" for name in names}
    wrong = await _wrong_types(store, kinds)
    return [f"{name} holds a {kind}, not a {kinds[name]}" for name, kind in wrong.items()]


def _raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
