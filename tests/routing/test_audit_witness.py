"""What a worker has seen of the audit trail is missed wherever it is lost."""

import asyncio
from pathlib import Path

import pytest

from gateway.api.drain import Drain
from gateway.api.observations import Observations
from gateway.pb import control_pb2 as pb
from gateway.routing.store.audit_chain import ChainLink, first_fault
from gateway.routing.store.audit_trail import append, chain
from gateway.routing.store.audit_witness import AuditWitness
from tests.routing.live import BY, control_of, document, store_of, whole_trail
from tests.routing.overtaken import Overtaken
from tests.valkey import Valkey


async def test_a_worker_misses_what_it_has_seen_though_both_keys_are_gone(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store:
        witness = AuditWitness(tmp_path / "audit-0")
        await witness.look(store)
        assert witness.noted == ChainLink()
        for name in ("a", "b"):
            await append(store, "model.load", model=name, change=BY)
        await witness.look(store)
        noted = witness.noted
        assert noted == (await chain(store)).head
        await store.link.call("DEL", store.keys.audit, store.keys.chain)
        for name in ("c", "d", "e"):  # a chain without a fault, longer than what was there
            await append(store, "model.load", model=name, change=BY)
        page = await chain(store)
        assert first_fault(page.entries, anchor=page.anchor, head=page.head) is None
        again = AuditWitness(tmp_path / "audit-0")  # after a restart
        for one in (witness, again):
            await one.look(store)
            assert (one.noted, one.lost) == (noted, True)
        assert first_fault(page.entries, anchor=page.anchor, known=again.noted) is not None
        for damaged in (b"{", b'{"hash": "\xff"}', b'{"\xff": 1}'):
            (tmp_path / "audit-0").write_bytes(damaged)
            assert AuditWitness(tmp_path / "audit-0").noted == ChainLink()


async def test_a_heal_begins_a_trail_that_a_worker_follows(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control, witness = control_of(store), AuditWitness()
        await control.apply(document(share=10), change=BY)
        await witness.look(store)
        await store.link.call("DEL", store.keys.chain)
        await control.heal(change=BY, accept_store=True)
        await witness.look(store)
        assert (witness.noted, witness.lost) == ((await chain(store)).head, False)
        valkey.kill()
        await witness.look(store)  # a store that is away says nothing
        assert not witness.lost


async def test_what_a_failover_lost_is_missed_until_somebody_heals_and_what_is_lost_later_is_missed_again(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with store_of(valkey.url) as store:
        control, witness = control_of(store), AuditWitness(tmp_path / "audit-0")
        await control.apply(document(share=10), change=BY)
        copies = [(name, f"{name}:replica") for name in (store.keys.audit, store.keys.chain)]

        async def lose_commit(share: int) -> None:
            """Commits, and leaves the store as a replica has it that had not got that yet."""
            for name, replica in copies:
                await store.link.call("COPY", name, replica, "REPLACE")
            await control.apply(document(share=share), change=BY)
            await witness.look(store)
            for name, replica in copies:
                await store.link.call("RENAME", replica, name)

        await lose_commit(20)
        await witness.look(store)
        assert witness.lost
        await store.link.call("HSET", store.keys.chain, "healed", "99")  # an entry that is none
        await witness.look(store)
        assert witness.lost
        await store.link.call("HSET", store.keys.routes, "other", "garbage")
        await control.heal(change=BY, accept_store=True)
        await witness.look(store)
        assert (witness.noted, witness.lost) == ((await chain(store)).head, False)
        await whole_trail(store)
        await lose_commit(30)  # the heal that is in the trail does not explain this
        for one in (witness, AuditWitness(tmp_path / "audit-0")):
            await one.look(store)
            assert one.lost


async def test_a_trail_that_cannot_be_read_is_told_as_well_as_one_that_lacks_what_was_seen(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_of(valkey.url) as store:
        witness = AuditWitness()
        await append(store, "model.load", model="m", change=BY)
        await witness.look(store)
        await store.link.call("SET", store.keys.chain, "x")
        for _ in range(2):
            await witness.look(store)
            assert witness.lost
        assert caplog.text.count("the audit trail cannot be read") == 1
        await store.link.call("DEL", store.keys.audit, store.keys.chain)
        for _ in range(2):
            await witness.look(store)
            assert witness.lost
        assert caplog.text.count("the audit trail lacks entry 1, which this worker has seen") == 1


async def test_looks_that_overlap_miss_nothing_while_an_entry_is_new(valkey: Valkey, tmp_path: Path) -> None:
    async with store_of(valkey.url) as store:
        witness = AuditWitness(tmp_path / "audit-0")
        await append(store, "model.load", model="m", change=BY)
        await witness.look(store)
        lost: list[bool] = []

        async def look() -> None:
            await witness.look(store)
            lost.append(witness.lost)

        for name in ("a", "b"):
            await append(store, "model.load", model=name, change=BY)
            await asyncio.gather(*(look() for _ in range(4)))
        assert lost == [False] * 8
        assert (witness.noted, AuditWitness(tmp_path / "audit-0").noted) == ((await chain(store)).head,) * 2
        await store.link.call("DEL", store.keys.audit, store.keys.chain)
        await asyncio.gather(*(look() for _ in range(4)))
        assert lost[8:] == [True] * 4


async def test_a_heal_in_the_midst_of_a_look_explains_what_the_look_lacks(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        control, witness = control_of(store), AuditWitness()
        await control.apply(document(share=10), change=BY)
        await control.apply(document(share=20), change=BY)
        await witness.look(store)
        await store.link.call("DEL", store.keys.audit, store.keys.chain)
        await store.link.call("HSET", store.keys.routes, "other", "garbage")
        for name in ("a", "b"):  # the heal is not the first entry
            await append(store, "model.load", model=name, change=BY)
        overtaken = Overtaken(valkey.url, 1, lambda: control.heal(change=BY, accept_store=True))
        await witness.look(overtaken)
        await overtaken.aclose()
        assert (witness.noted, witness.lost) == ((await chain(store)).head, False)


async def test_an_older_heal_excuses_no_loss_and_a_newer_one_is_told(
    valkey: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_of(valkey.url) as store:
        control, witness = control_of(store), AuditWitness(tmp_path / "audit-0")
        await control.apply(document(share=10), change=BY)
        copies = [(name, f"{name}:first") for name in (store.keys.audit, store.keys.chain)]

        async def heal() -> int:
            await store.link.call("HSET", store.keys.routes, "other", "garbage")
            await control.heal(change=BY, accept_store=True)
            return (await chain(store)).head.sequence

        await heal()
        for name, copy in copies:
            await store.link.call("COPY", name, copy)
        await heal()
        await control.apply(document(share=20), change=BY)
        await witness.look(store)
        assert not witness.lost
        for name, copy in copies:  # a trail whose newest heal is the first
            await store.link.call("COPY", copy, name, "REPLACE")
        for one in (witness, AuditWitness(tmp_path / "audit-0")):
            await asyncio.gather(one.look(store), one.look(store))
            assert one.lost
        noted = witness.noted
        healed = await heal()
        caplog.clear()
        for _ in range(2):
            await witness.look(store)
            assert (witness.noted, witness.lost) == ((await chain(store)).head, False)
        assert caplog.text.count("the audit trail lacks entry") == 1
        assert f"lacks entry {noted.sequence} ({noted.hash}), which" in caplog.text
        assert f"has seen: heal {healed}, by tester, explains it" in caplog.text


async def test_what_is_said_to_have_been_dropped_is_missed_where_it_cannot_have_been(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        witness = AuditWitness()
        await append(store, "model.load", model="m", change=BY)
        await witness.look(store)
        await store.link.call("DEL", store.keys.audit)
        await store.link.call("HSET", store.keys.chain, "trimmed_sequence", "1")
        await witness.look(store)
        assert witness.lost


async def test_what_the_worker_notes_while_the_chain_is_read_is_no_part_of_the_answer(valkey: Valkey) -> None:
    async with store_of(valkey.url) as store:
        witness = AuditWitness()
        await append(store, "model.load", model="a", change=BY)

        async def note() -> None:
            await append(store, "model.load", model="b", change=BY)
            await witness.look(store)

        overtaken = Overtaken(valkey.url, 3, note)  # two answers for the look, and one page
        observations = Observations(control_of(overtaken), Drain(), witness)
        page = await observations.audit_chain(pb.AuditChainRequest(limit=1), None)
        await overtaken.aclose()
        assert witness.noted.sequence == 2
        assert (page.head_sequence, page.noted_sequence) == (1, 1)
        assert page.noted_hash == page.head_hash
