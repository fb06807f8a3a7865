"""The audit trail: all that changes something is in it before it takes effect, as a chain."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument, StoreDamaged, StoreUnavailable
from gateway.routing.store.audit_chain import KEPT, AuditEntry, ChainLink, RouteInForce, compare, cut_off, first_fault
from gateway.routing.store.audit_trail import append, audit, chain, chain_and_routes, routes_in_force
from gateway.routing.store.change import Change, Proposal
from gateway.routing.store.route_draft import REJECTED, Drafts
from gateway.routing.store.store_script import AUDIT
from tests.routing.live import BY, admin_of, control_of, document, route, store_of, whole_trail
from tests.valkey import Valkey

START = ChainLink()


def entry(sequence: int, before: str, reason: str = "") -> AuditEntry:
    made = AuditEntry(sequence, "apply", "m", sequence, 0, 0, "", "ann", reason, "cli", 1, "", before, "")
    return replace(made, hash=made.computed_hash())


def chained(reasons: Sequence[str]) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for reason in reasons:
        entries.append(entry(len(entries) + 1, entries[-1].hash if entries else "", reason))
    return entries


# ---- the chain ----


@given(st.lists(st.text(max_size=5), max_size=6), st.integers(0, 5), st.sampled_from(["change", "cut", "swap", "add"]))
@example([], 0, "change")
@example(["one"], 0, "cut")
@example(["same", "same", "same"], 1, "swap")
def test_whatever_is_done_to_a_chain_is_seen(reasons: list[str], place: int, deed: str) -> None:
    entries = chained(reasons)
    head = entries[-1].link if entries else START
    assert first_fault(entries, anchor=START, head=head) is None
    assert first_fault(entries[1:], anchor=entries[0].link if entries else START, head=head) is None
    if place >= len(entries):
        return
    damaged = list(entries)
    if deed == "change":
        damaged[place] = replace(damaged[place], actor="eve")
    elif deed == "cut":
        del damaged[place]
    elif deed == "add":
        damaged.insert(place, entry(place + 1, damaged[place].before, "added"))
    elif place:
        damaged[place - 1 : place + 1] = [damaged[place], damaged[place - 1]]
    else:
        return
    fault = first_fault(damaged, anchor=START, head=head)
    assert fault is not None
    assert abs(fault.sequence - (place + 1)) <= 1


def test_a_chain_that_was_made_anew_is_not_the_one_that_was_noted() -> None:
    noted = chained(["a", "b"])[-1].link
    forged = chained(["a", "B", "c"])
    assert first_fault(forged, anchor=START, head=forged[-1].link) is None
    fault = first_fault(forged, anchor=START, head=forged[-1].link, known=noted)
    assert fault is not None
    assert (fault.sequence, "made anew" in fault.why) == (2, True)
    short = first_fault(forged[:1], anchor=START, known=noted)
    assert short is not None
    assert "was noted" in short.why


def test_routes_that_nobody_committed_are_told_from_those_of_before_the_chain() -> None:
    entries = chained(["a"])
    first = replace(entries[0], revision=5, document="d")
    routes = [RouteInForce("m", 5, "d"), RouteInForce("old", 3, "x"), RouteInForce("m", 5, "other")]
    told = compare([first], [*routes, RouteInForce("new", 9, "x"), RouteInForce("none", 0, "x")])
    assert told.unchained == ("revision 3 of 'old'",)
    assert len(told.contradictions) == 3
    assert compare([], routes).contradictions == ()
    accepted = replace(entries[0], operation="accept", revision=9, model="")
    assert compare([accepted], routes).contradictions == ()


# ---- in the store ----


@pytest.mark.parametrize("size", [0, 55, 56, 63, 64, 65, 1000])
async def test_the_store_hashes_as_sha_256_does(size: int, valkey: Valkey) -> None:
    async with admin_of(valkey.url) as admin:
        functions = AUDIT.text.partition("\n")[2].partition("-- Records what changes")[0]
        message = os.urandom(size)
        answer = await admin.call("EVAL", f"{functions}\nreturn sha256(ARGV[1])", 0, message)
        assert answer == hashlib.sha256(message).hexdigest().encode()


async def test_everything_that_changes_something_is_in_one_chain(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control, drafts = control_of(store), Drafts(store)
        await control.apply(document(share=10), change=BY)
        await control.apply(document(share=20), change=BY)
        await control.rollback("fraud", change=BY)
        draft = await drafts.put(document(share=30), 3, BY, needed=1)
        await drafts.approve(draft.id, replace(BY, actor="ann"))
        await drafts.close(draft.id, REJECTED, replace(BY, reason="later"), edit=1)
        await append(store, "model.unload", model="fraud", change=BY)
        for _ in range(3):  # each worker tells of it
            await append(store, "version.replaced", model="fraud", detail="a -> b", change=BY, once="fraud/1 a b")
        await store.link.call("HSET", store.keys.routes, "other", "garbage")
        await control.heal(change=BY, accept_store=True)
        await control.delete("fraud", change=BY)
        entries = await whole_trail(store)
        assert [one.operation for one in entries] == [
            *("apply", "apply", "rollback", "draft.put", "draft.approve", "draft.rejected"),
            *("model.unload", "version.replaced", "accept", "delete"),
        ]
        assert entries[3].detail == f"draft {draft.id} edit 1"
        assert entries[0].document != entries[1].document
        assert entries[0].document == entries[2].document
        assert {one.actor for one in entries} == {"tester", "ann"}
        listed = await audit(store, limit=100)
        assert listed == entries[::-1]
        assert [one.actor for one in await audit(store, actor="ann")] == ["ann"]


async def test_commits_at_once_are_one_chain_and_the_routes_are_what_it_recorded(valkey: Valkey) -> None:
    async with store_of(valkey.url, timeout_s=10.0) as store:  # the machine may be busy
        epoch = (await store.commit(Proposal("m", "apply", route("m"), 0, "", BY))).epoch
        commits = [store.commit(Proposal(f"m{n}", "apply", route(f"m{n}"), None, epoch, BY)) for n in range(20)]
        await asyncio.gather(*commits, *(append(store, "model.load", model=f"m{n}", change=BY) for n in range(5)))
        entries = await whole_trail(store)
        assert len(entries) == 26
        assert compare(entries, await routes_in_force(store)) == compare([], [])
        held = str((await store.current("m3")).text)
        await store.link.call("HSET", store.keys.routes, "m3", held.replace('"version":"2"', '"version":"9"'))
        [told] = compare(entries, await routes_in_force(store)).contradictions
        assert "the route of 'm3' is not what entry" in told


async def test_a_route_that_is_committed_while_the_trail_is_read_is_not_one_without_a_record(valkey: Valkey) -> None:
    async with store_of(valkey.url, timeout_s=10.0) as store:  # the machine may be busy
        epoch = (await store.commit(Proposal("m", "apply", route("m"), 0, "", BY))).epoch

        async def commit(model: str) -> None:
            for _ in range(20):
                await store.commit(Proposal(model, "apply", route(model), None, epoch, BY))

        commits = asyncio.gather(*(commit(f"m{n}") for n in range(8)))
        while not commits.done():
            page, routes = await chain_and_routes(store)
            assert compare(page.entries, routes).contradictions == ()
        await commits
        page, routes = await chain_and_routes(store, limit=161)
        assert (len(page.entries), routes) == (161, [])  # there may be more
        page, routes = await chain_and_routes(store, after=160, limit=2)
        assert (len(page.entries), len(routes)) == (1, 9)


async def test_what_is_no_longer_kept_leaves_an_anchor(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        keys = [store.keys.audit, store.keys.chain, ""]
        for number in range(260):
            keys[2] = store.keys.recorded(f"{number}")
            await store.link.script(AUDIT, keys, ["model.load", "m", "ann", "", "cli", "", 50, 60])
        page = await chain(store)
        assert (page.anchor.sequence, page.entries[0].sequence, page.head.sequence) == (200, 201, 260)
        assert first_fault(page.entries, anchor=page.anchor, head=page.head) is None
        await store.link.call("XTRIM", store.keys.audit, "MINID", "220")
        page = await chain(store)
        fault = first_fault(page.entries, anchor=page.anchor, head=page.head)
        assert fault is not None
        assert fault.sequence == 201


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("SET", "{gw:default}:audit", "x"), "audit' holds string"),
        (("DEL", "{gw:default}:chain"), "chain' holds nothing"),
        (("HSET", "{gw:default}:chain", "sequence", "many"), "chain' holds no number"),
        (("XADD", "{gw:default}:audit", "77-0", "a", "b"), "an entry that is not of the chain"),
    ],
    ids=["type", "gone", "garbage", "ahead"],
)
async def test_what_cannot_be_recorded_is_not_done_until_somebody_heals(
    words: tuple[str, ...], why: str, valkey: Valkey
) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await control.apply(document(share=10), change=BY)
        before = await store.state()
        if words[0] == "SET":
            await store.link.call("DEL", store.keys.audit)
        await store.link.call(*words)
        for change in (
            control.apply(document(share=20), change=BY),
            append(store, "model.load", model="fraud", change=BY),
            Drafts(store).put(document(), 1, BY, needed=1),
        ):
            with pytest.raises(StoreDamaged, match=why):
                await change
        assert await store.state() == before
        assert await Drafts(store).list() == []
        healed = await control.heal(change=BY, accept_store=True)
        assert healed.findings
        await control.apply(document(share=20), change=BY)
        assert [one.operation for one in await whole_trail(store)] == ["accept", "apply"]


async def test_a_server_that_is_killed_keeps_a_record_of_every_change_that_it_kept(valkey: Valkey) -> None:
    async with store_of(valkey.url, timeout_s=10.0) as store:  # the machine may be busy
        epoch = (await store.commit(Proposal("m", "apply", route("m"), 0, "", BY))).epoch
        commits = [store.commit(Proposal(f"m{n}", "apply", route(f"m{n}"), None, epoch, BY)) for n in range(60)]
        running = [asyncio.ensure_future(commit) for commit in commits]
        await running[5]
        valkey.kill()
        answers = await asyncio.gather(*running, return_exceptions=True)
        valkey.start()
        answered = {answer.model for answer in answers if not isinstance(answer, BaseException)}
        entries = await whole_trail(store)
        routes = await routes_in_force(store)
        assert answered <= {one.model for one in routes}
        assert {one.model for one in routes} == {one.model for one in entries}
        assert compare(entries, routes).contradictions == ()


async def test_who_dies_between_the_record_and_the_deed_leaves_the_record(valkey: Valkey) -> None:
    program = """if True:
        import asyncio, os, signal, sys
        from gateway.routing.store.audit_trail import append
        from gateway.routing.store.change import Change
        from gateway.routing.store.redis_store import RedisStore

        async def unload():
            await append(RedisStore(sys.argv[1]), "model.unload", model="fraud", change=Change(actor="ann"))
            os.kill(os.getpid(), signal.SIGKILL)
            print("unloaded")

        asyncio.run(unload())
    """
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, valkey.url, stdout=pipe)
    assert (await child.communicate())[0] == b""
    assert child.returncode == -signal.SIGKILL
    async with store_of(valkey.url) as store:
        [recorded] = await whole_trail(store)
        assert (recorded.operation, recorded.actor) == ("model.unload", "ann")


async def test_what_was_committed_before_the_trail_began_is_listed_without_a_place_in_it(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control = control_of(store)
        await control.apply(document(share=10), change=BY)
        await store.link.call("DEL", store.keys.audit, store.keys.chain)  # as an older release leaves it
        await control.apply(document("churn"), change=BY)
        assert [(one.sequence, one.revision) for one in await audit(store)] == [(1, 2), (0, 1)]
        told = compare(await whole_trail(store), await routes_in_force(store))
        assert told.unchained == ("revision 1 of 'fraud'",)
        assert told.contradictions == ()


async def test_a_key_of_one_caller_records_nothing_for_another(valkey: Valkey) -> None:
    changes = [replace(BY, idempotency_key="deploy-1", keyed_by=caller) for caller in ("ann", "bob", "ann")]
    async with store_of(valkey.url) as store:
        assert [await append(store, "model.load", model="m", change=change) for change in changes] == [1, 2, 1]


async def test_only_what_changes_something_outside_the_store_is_recorded_by_hand(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        with pytest.raises(InvalidArgument, match=r"'apply' is not one of model\.load"):
            await append(store, "apply", model="m", change=BY)
        with pytest.raises(InvalidArgument, match="detail"):
            await append(store, "model.load", model="m", detail="x" * 1025, change=BY)
        valkey.kill()
        with pytest.raises(StoreUnavailable):
            await append(store, "model.load", model="m", change=Change())


def test_a_beginning_that_somebody_cut_off_is_not_what_was_dropped() -> None:
    assert cut_off(ChainLink(), ChainLink(7, "h")) == ""
    assert cut_off(ChainLink(40, "a"), ChainLink(40 + KEPT, "h")) == ""
    assert "the entries up to 40 were taken out: 30 are there" in cut_off(ChainLink(40, "a"), ChainLink(70, "h"))
