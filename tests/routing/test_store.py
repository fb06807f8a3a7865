"""The store's promises: a change is committed once, whole, in order, or not at all and the caller is told why."""

import asyncio

import pytest

from gateway.errors import InvalidArgument, StaleRevision
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.audit_trail import append
from gateway.routing.store.change import Change, Proposal, StoreReplaced
from gateway.routing.store.redis_store import HISTORY_LENGTH, RedisStore
from gateway.routing.store.store_keys import StoreKeys
from gateway.routing.store.store_reply import committed_text, digest_of, fingerprint, revision_in
from tests.routing.live import BY, control_of, document, route, store_of
from tests.valkey import Valkey


def proposal(
    model: str = "fraud", share: int = 10, *, expected: int | None = 0, epoch: str = "", change: Change = BY
) -> Proposal:
    return Proposal(model, "apply", route(model, share), expected, epoch, change)


async def test_a_commit_is_what_everything_else_then_reads(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        committed = await store.commit(proposal())
        assert (committed.revision, committed.previous_revision, committed.repeated) == (1, 0, False)
        current = await store.current("fraud")
        stored = Route.from_json(current.text)
        assert (stored.revision, stored.committed_at_us) == (1, committed.committed_at_us)
        assert stored.document == document()
        state = await store.state()
        assert (state.epoch, state.revision, dict(state.texts)) == (committed.epoch, 1, {"fraud": current.text})
        [entry] = await store.history("fraud")
        assert (entry.actor, entry.reason, entry.source, entry.operation) == ("tester", "test", "cli", "apply")
        assert entry.route_text == current.text == committed_text(stored)
        assert await store.entry("fraud", 1) == entry
        assert await store.entry("fraud", 2) is None
        assert await store.entry("fraud", -1) is None, "no revision has that number, and the store is not away"


async def test_the_digest_of_the_store_is_that_of_what_was_read(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        epoch = (await store.commit(proposal("m0"))).epoch
        for number in range(1, 20):
            await store.commit(proposal(f"m{number}", number, epoch=epoch))
        state = await store.state()
        prints = {model: fingerprint(model, text, state.sizes[model]) for model, text in state.texts.items()}
        assert digest_of(prints) == state.digest
        prints["m3"] = fingerprint("m3", "something else")
        assert digest_of(prints) != state.digest


async def test_one_of_fifty_writers_wins_each_revision(valkey: Valkey) -> None:
    async with store_of(valkey.url, timeout_s=10.0) as store:
        epoch = ""
        for round_number in range(3):
            current = (await store.current("fraud")).revision
            racers = [store.commit(proposal(share=n, expected=current, epoch=epoch)) for n in range(50)]
            results = await asyncio.gather(*racers, return_exceptions=True)
            won = [r for r in results if not isinstance(r, BaseException)]
            lost = [r for r in results if isinstance(r, StaleRevision | StoreReplaced)]
            assert (len(won), len(lost)) == (1, 49)
            assert won[0].revision == round_number + 1
            epoch = won[0].epoch
            assert all(error.current == won[0].revision for error in lost if isinstance(error, StaleRevision))


async def test_revisions_are_dense_over_all_models_and_the_log_holds_each(valkey: Valkey) -> None:
    async with store_of(valkey.url, timeout_s=10.0) as store:
        epoch = (await store.commit(proposal("m"))).epoch
        commits = [store.commit(proposal(f"m{n}", n, expected=None, epoch=epoch)) for n in range(60)]
        revisions = sorted(c.revision for c in await asyncio.gather(*commits))
        assert revisions == list(range(2, 62))
        entries = await store._link.call("XRANGE", store.keys.log, "-", "+")
        assert isinstance(entries, list)
        assert [e[0] for e in entries if isinstance(e, list)] == [f"{n}-0".encode() for n in range(1, 62)]


async def test_the_same_key_again_answers_the_first_commit(valkey: Valkey) -> None:
    change = Change(actor="tester", idempotency_key="deploy 7")
    async with store_of(valkey.url) as store:
        first = await store.commit(proposal(change=change))
        again = await asyncio.gather(*(store.commit(proposal(share=50, change=change)) for _ in range(10)))
        assert {(c.revision, c.epoch, c.committed_at_us, c.repeated) for c in again} == {
            (1, first.epoch, first.committed_at_us, True)
        }
        assert (await store.state()).revision == 1
        assert await store.remembered("deploy 7") == again[0]
        assert await store.remembered("deploy 8") is None


async def test_a_stale_revision_and_another_epoch_change_nothing(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        epoch = (await store.commit(proposal())).epoch
        before = await store.state()
        with pytest.raises(StaleRevision, match="at revision 1, not 7"):
            await store.commit(proposal(expected=7, epoch=epoch))
        with pytest.raises(StoreReplaced):
            await store.commit(proposal(expected=1, epoch="another"))
        assert await store.state() == before


async def test_scripts_survive_a_server_that_forgot_them(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        epoch = (await store.commit(proposal())).epoch
        await store._link.call("SCRIPT", "FLUSH")
        assert (await store.commit(proposal(share=20, expected=1, epoch=epoch))).revision == 2
        valkey.restart()
        assert (await store.state()).revision == 2
        assert (await store.commit(proposal(share=30, expected=2, epoch=epoch))).revision == 3


async def test_history_is_bounded(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        epoch = (await store.commit(proposal())).epoch
        for share in range(HISTORY_LENGTH + 5):
            await store.commit(proposal(share=share % 100, expected=None, epoch=epoch))
        entries = await store.history("fraud", HISTORY_LENGTH + 50)
        assert len(entries) == HISTORY_LENGTH
        assert entries[0].revision == HISTORY_LENGTH + 6


@pytest.mark.parametrize("environment", ["", "a b", "a}b", "ä", "x" * 65, "a\n"])
def test_an_environment_cannot_change_what_a_key_means(environment: str) -> None:
    with pytest.raises(InvalidArgument, match="environment"):
        StoreKeys(environment)


def test_all_keys_share_one_slot() -> None:
    keys = StoreKeys("prod")
    names = [
        keys.epoch,
        keys.revision,
        keys.routes,
        keys.log,
        keys.history("m"),
        keys.idempotency("}{k"),
        keys.worker("w"),
    ]
    assert {name[: name.index("}") + 1] for name in names} == {"{gw:prod}"}


@pytest.mark.parametrize("url", ["nonsense", "http://localhost", "redis://localhost:port"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="redis url"):
        RedisStore(url)


@pytest.mark.parametrize(
    "change", [{"actor": "x" * 257}, {"reason": "x" * 1025}, {"source": "x" * 65}, {"idempotency_key": "a\nb"}]
)
def test_who_and_why_are_bounded(change: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=f"change.{next(iter(change))}"):
        Change(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "revision"), [('{"revision":12,"a":1}', 12), ("{}", 0), ("", 0), ('{"revision":-1,', 0)]
)
def test_the_revision_of_a_stored_text(text: str, revision: int) -> None:
    assert revision_in(text) == revision


@pytest.mark.parametrize(
    "damage", [("LPUSH", "alien"), ("SET", "garbage"), ("SET", "1 2 3 4 5 6 7 8"), ("SET", b"\xff")]
)
async def test_garbage_where_an_answer_is_remembered_is_replaced(
    valkey: Valkey, damage: tuple[str, str | bytes]
) -> None:
    """No healing would find it: the key is the caller's."""
    change = Change(actor="tester", idempotency_key="deploy 7")
    command, value = damage
    async with store_of(valkey.url) as store:
        for name in (store.keys.idempotency("deploy 7"), store.keys.recorded("load 7")):
            await store.link.call(command, name, value)
        control = control_of(store)
        made, again = [await control.apply(document(), change=change) for _ in range(2)]
        assert made.change.revision == again.change.revision == 1
        recorded = [await append(store, "model.load", model="fraud", change=BY, once="load 7") for _ in range(2)]
        assert recorded[0] == recorded[1]
