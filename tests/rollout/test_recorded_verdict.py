"""A verdict in the audit trail: judged again from what is recorded, and each number that somebody changed is named."""

import asyncio
import base64
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from typer.testing import CliRunner, Result

from gateway.cli.app import app
from gateway.rollout.arm_counts import ROWS_BINS, ArmCounts
from gateway.rollout.evidence import after_tick
from gateway.rollout.guardrail_judges import JUDGES
from gateway.rollout.ramp import Advance
from gateway.rollout.recorded_verdict import RecordedVerdict, VerdictState, judged_again, recorded, verdict_in
from gateway.rollout.rollout_record import begun
from gateway.routing.document.strategy import Canary
from gateway.routing.store.audit_chain import AuditEntry, ChainLink
from gateway.routing.store.audit_trail import chain
from tests.rollout.rolling import AT_ONCE, BAD, GOOD, Rolling, document, stopped
from tests.routing.live import BY
from tests.routing.test_document_fields import EVERY_GUARDRAIL


async def verdicts(rolling: Rolling) -> list[tuple[AuditEntry, RecordedVerdict]]:
    entries = (await chain(rolling.store)).entries
    told = [(entry, verdict_in(entry.detail)) for entry in entries if entry.actor == "judge"]
    return [(entry, verdict) for entry, verdict in told if verdict is not None]


async def stopped_by_judge(rolling: Rolling) -> tuple[AuditEntry, RecordedVerdict]:
    await rolling.control.apply(document(), change=BY)
    await rolling.until(lambda record: True)
    await rolling.tell(stable=GOOD, canary=BAD)
    await rolling.until(stopped)
    [made] = await verdicts(rolling)
    return made


async def test_steps_and_promotions_are_judged_again_from_the_trail(rolling: Rolling) -> None:
    await rolling.control.apply(document(), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.step == 1)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.phase == "promoted")
    made = await verdicts(rolling)
    assert [verdict.act for _, verdict in made] == ["advance", "promote"]
    of_revision = {entry.revision: entry.document for entry in (await chain(rolling.store)).entries}
    for entry, verdict in made:
        assert judged_again(verdict, entry.reason).faults == ()
        assert verdict.document == of_revision[verdict.revision] != ""
        assert [one.kind for one in verdict.findings] == ["errors"]
        assert entry.hash == entry.computed_hash()


async def test_a_stop_carries_what_proved_the_harm(rolling: Rolling) -> None:
    entry, verdict = await stopped_by_judge(rolling)
    assert (verdict.act, verdict.findings[0].canary_events) == ("stop", BAD["errors"])
    assert verdict.log_e is not None
    assert verdict.log_e > verdict.bound
    assert judged_again(verdict, entry.reason).faults == ()
    assert len(entry.detail) < 20_000


def with_state(verdict: RecordedVerdict, change: Callable[[VerdictState], VerdictState]) -> RecordedVerdict:
    """The verdict with another state inside."""
    state = msgspec.msgpack.decode(zlib.decompress(base64.b64decode(verdict.state)), type=VerdictState)
    packed = base64.b64encode(zlib.compress(msgspec.msgpack.encode(change(state)))).decode()
    return msgspec.structs.replace(verdict, state=packed)


def with_metric(verdict: RecordedVerdict, **fields: Any) -> RecordedVerdict:
    def change(state: VerdictState) -> VerdictState:
        value = msgspec.json.decode(msgspec.json.encode(state))
        value["state"]["evidence"]["guardrails"][0]["metrics"][0] |= fields
        return msgspec.convert(value, VerdictState)

    return with_state(verdict, change)


async def test_a_number_that_was_changed_is_named(rolling: Rolling) -> None:
    entry, verdict = await stopped_by_judge(rolling)
    finding = verdict.findings[0]
    for name, value in {"canary_events": 5, "log_e": 0.5, "verdict": "pass", "ratio_low": 9.0}.items():
        changed = msgspec.structs.replace(verdict, findings=(msgspec.structs.replace(finding, **{name: value}),))
        [fault] = judged_again(changed, entry.reason).faults
        assert fault.startswith(f"errors: {name}: ")
    for name, label in {"log_e": "evidence of harm", "bound": "bound", "harmed": "harmed"}.items():
        [fault] = judged_again(msgspec.structs.replace(verdict, **{name: 1.25}), entry.reason).faults
        assert fault.startswith(f"{label}: 1.25 is recorded")
    [fault] = judged_again(msgspec.structs.replace(verdict, act="promote"), entry.reason).faults
    assert fault == "what follows: 'promote' is recorded, it is 'stop'"
    assert any(fault.startswith("reason: ") for fault in judged_again(verdict, "all was well").faults)
    inner = judged_again(with_metric(verdict, stable_events=400), entry.reason).faults
    assert any("stable_events and what the arm counted" in fault for fault in inner)
    faults = judged_again(with_metric(verdict, unspent=-1.0), entry.reason).faults
    assert any("stake after these ticks" in fault for fault in faults)
    broken = msgspec.structs.replace(verdict, state=verdict.state[:-40])
    assert judged_again(broken, entry.reason).faults[0].startswith("state: what was recorded cannot be read")


def test_other_details_are_no_verdicts() -> None:
    for detail in ("", "model loaded", '{"verdict":"pass"}', '{"form":1}', "{"):
        assert verdict_in(detail) is None


async def exported(rolling: Rolling, file: Path) -> list[AuditEntry]:
    """The trail as `gateway audit export` writes it."""
    page = await chain(rolling.store)
    lines: list[object] = [{"anchor": page.anchor, "head": page.head}, *page.entries]
    await asyncio.to_thread(file.write_bytes, b"\n".join(msgspec.json.encode(line) for line in lines))
    return list(page.entries)


def verified(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", "verify", *words])


async def test_the_command_judges_an_exported_trail_again(rolling: Rolling, tmp_path: Path) -> None:
    entry, verdict = await stopped_by_judge(rolling)
    file = tmp_path / "audit.jsonl"
    entries = await exported(rolling, file)
    words = "-f", str(file), "--verdict", str(entry.sequence)
    told = await asyncio.to_thread(verified, *words)
    assert told.exit_code == 0, told.output
    assert "judged again from the counters and the evidence: the same" in told.stdout
    assert "500 of 5000" in told.stdout
    value = msgspec.json.decode((await asyncio.to_thread(verified, *words, "-o", "json")).stdout)
    assert (value["verdict"]["act"], value["verdict"]["document_checked"], value["wrong"]) == ("stop", True, [])
    finding = msgspec.structs.replace(verdict.findings[0], canary_events=5)
    detail = msgspec.json.encode(msgspec.structs.replace(verdict, findings=(finding,))).decode()
    forged = [replace(one, detail=detail) if one == entry else one for one in entries]
    rehashed = [replace(one, hash=one.computed_hash()) if one.detail == detail else one for one in forged]
    for trail, named in ((forged, f"entry {entry.sequence} was changed"), (rehashed, "errors: canary_events: 5")):
        ends = {"anchor": ChainLink(), "head": trail[-1].link}
        await asyncio.to_thread(file.write_bytes, b"\n".join(msgspec.json.encode(line) for line in [ends, *trail]))
        told = await asyncio.to_thread(verified, *words)
        assert told.exit_code == 1
        assert named in told.stdout
        assert "errors: canary_events: 5 is recorded, it is 500" in told.stdout
    assert (await asyncio.to_thread(verified, "-f", str(file), "--verdict", "1")).exit_code == 2
    assert (await asyncio.to_thread(verified, "-f", str(file), "--verdict", "99")).exit_code == 2


async def test_the_way_back_of_a_watched_version_is_judged_again(rolling: Rolling) -> None:
    await rolling.control.apply(document(AT_ONCE[1:], afterPromote={"watch": "1h"}), change=BY)
    await rolling.tell(stable=GOOD, canary=GOOD)
    await rolling.until(lambda record: record.state.phase == "watching")
    await rolling.tell(stable=BAD)
    await rolling.until(stopped)
    made = await verdicts(rolling)
    assert [(verdict.act, verdict.phase) for _, verdict in made] == [("promote", "ramping"), ("stop", "watching")]
    assert [judged_again(verdict, entry.reason).faults for entry, verdict in made] == [(), ()]


def test_every_kind_of_guardrail_is_judged_again_as_it_was() -> None:
    """Drawn from the table: whatever evidence a kind keeps, it comes back from what is recorded."""
    made = document(analysis={"guardrails": EVERY_GUARDRAIL}, afterPromote={"watch": "1h"})
    canary = made.strategy
    assert isinstance(canary, Canary)
    assert canary.analysis is not None
    assert {one.kind.name for one in canary.analysis.effective_guardrails} == JUDGES.keys()
    record = begun("r", made, 7, 1_000, 0)
    evidence = record.state.evidence
    for tick in range(25):
        arms = [
            ArmCounts(
                300, errors, (200, 90, 9, 1), ((200, 90, 9, 1),) * len(ROWS_BINS), errors, {0: 200, 1: 100}, {}, 10,
                1.5, 30, 4, {"reward": (300, 150.0 + tick, 90.0)},
            )
            for errors in (tick % 3, 1)
        ]  # fmt: skip
        evidence = after_tick(evidence, canary.analysis, arms[0], arms[1], ((arms[0], arms[1]),))
    record = msgspec.structs.replace(record, state=msgspec.structs.replace(record.state, evidence=evidence))
    verdict = verdict_in(recorded(record, canary, Advance(1, "over"), 2_000, "abc"))
    assert verdict is not None
    assert len(verdict.findings) == len(JUDGES)
    decision = ("what follows", "reason")  # nothing is due: somebody has to be asked first
    assert not [fault for fault in judged_again(verdict, "over").faults if not fault.startswith(decision)]
