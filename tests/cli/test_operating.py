"""The operators' verbs as they are typed, against a real worker."""

import asyncio
import re
import sys

import pytest

from gateway.cli.applied_change import change_value, took
from gateway.pb import control_pb2
from tests.api.routes import ab, blue_green, canary, route
from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_plan_for_people_and_for_programs(shell: Shell) -> None:
    await shell.worker.apply(ab(90, 10))
    file = shell.write("draft.yaml", ab(75, 25))
    text = await shell.done("plan", "-f", file)
    assert re.search(r'spec.strategy.ab.weights.b +"10%" +"25%"', text)
    assert re.search(r"a +1 +b +2 +15 %", text)
    assert "15 % of the keys change their arm, 15 % their version" in text
    value = await shell.value("plan", "-f", file)
    assert (value["moved_percent"], value["unchanged"], value["obstacles"]) == (15.0, False, [])
    expected = str(value["base_revision"])
    assert "committed" in await shell.done("routes", "apply", "-f", file, "--expect-revision", expected)
    assert "nothing would be committed" in await shell.done("plan", "-f", file)


async def test_a_plan_that_would_be_refused_ends_with_one(shell: Shell) -> None:
    file = shell.write("draft.yaml", route({"a": {"version": "9"}}, {"pinned": {"arm": "a"}}))
    result = await shell.run("plan", "-f", file)
    assert result.exit_code == 1
    assert "version 9 is UNKNOWN" in result.stdout
    assert "no version '9'" in result.stderr


async def test_every_verb_changes_what_it_says(shell: Shell) -> None:
    await shell.worker.apply(blue_green())
    assert re.search(r"affine +\d+ +committed +100 % +[\d.]+ ms by 1 worker", await shell.done("flip", "affine"))
    assert "unchanged" in await shell.done("flip", "affine", "--arm", "green")
    await shell.worker.apply(ab(90, 10))
    [change] = await shell.value("weights", "affine", "a=80", "b=20%", "--reason", "so far so good")
    assert (change["moved_percent"], change["laggards"]) == (10.0, [])
    assert "would be committed" in await shell.done("pin", "affine", "b", "--dry-run")
    await shell.done("pin", "affine", "b")
    await shell.done("kill", "affine", "--reason", "incident 4711", "--arm", "a")
    assert "KILLED to a (incident 4711)" in await shell.done("routes", "list")
    await shell.done("unkill", "affine")
    await shell.worker.apply(canary())
    await shell.done("promote", "affine")
    await shell.done("promote", "affine", "--full", "--reason", "no complaint")
    told = await shell.value("audit", "--limit", "9")
    assert [entry["operation"] for entry in told] == [
        *("promote", "promote", "apply", "unkill", "kill", "pin", "weights", "apply", "flip"),
    ]
    assert told[0]["reason"] == "no complaint"
    assert {entry["source"] for entry in told} == {"cli"}
    table = await shell.done("audit", "--model", "affine", "--limit", "2")
    assert len(table.strip().splitlines()) == 4


async def test_the_audit_trail_is_verified_here_and_from_a_file(shell: Shell) -> None:
    await shell.worker.apply(ab(90, 10))
    newest = (await shell.value("audit", "verify"))["head"]
    await shell.worker.apply(ab(60, 40))
    assert "are a chain; note the newest" in await shell.done("audit", "verify", "--anchor", newest)
    assert (await shell.value("audit", "--limit", "1"))[0]["sequence"] == int(newest.partition(":")[0]) + 1
    file = shell.directory / "audit.jsonl"
    exported = await shell.run("audit", "export", "-f", str(file))
    assert (exported.exit_code, f"entries are in {file}" in exported.stderr) == (0, True)
    assert "are a chain" in await shell.done("audit", "verify", "-f", str(file), "--anchor", newest)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], lines[-1].replace('"tester"', '"nobody"')]))
    changed = await shell.run("audit", "verify", "-f", str(file))
    assert (changed.exit_code, "its hash is not that of its fields" in changed.stdout) == (1, True)
    sequence = newest.partition(":")[0]
    anew = await shell.run("audit", "verify", "--anchor", f"{sequence}:{'0' * 64}")
    assert (anew.exit_code, f"entry {sequence} is not the entry that was noted" in anew.stdout) == (1, True)
    for words in (["--anchor", "x"], ["--anchor", newest[:-1]], ["-f", "/no/such"], ["-f", __file__]):
        assert (await shell.run("audit", "verify", *words)).exit_code == 2
    assert (await shell.run("audit", "export", "-o", "yaml")).exit_code == 2


def as_bytes(reply: object) -> bytes:
    assert isinstance(reply, bytes)
    return reply


async def test_a_trail_that_somebody_made_anew_is_found_by_who_has_seen_it(shell: Shell) -> None:
    store = shell.worker.store
    await shell.worker.apply(ab(90, 10))
    assert "are a chain" in await shell.done("audit", "verify")
    keys = (store.keys.audit, store.keys.chain)
    held = [as_bytes(await store.link.call("DUMP", key)) for key in keys]
    try:
        await store.link.call("DEL", store.keys.audit, store.keys.chain)
        await shell.worker.apply(ab(60, 40))
        missed = await shell.run("audit", "verify")
        assert missed.exit_code == 1
        assert "which the gateway has seen, was noted, but the entries are 1 to 1" in missed.stdout
        await store.link.call("DEL", store.keys.audit, store.keys.chain)
    finally:
        for key, content in zip(keys, held, strict=True):
            await store.link.call("RESTORE", key, 0, content)
    head = int(as_bytes(await store.link.call("HGET", store.keys.chain, "sequence")))
    await store.link.call("HSET", store.keys.chain, "trimmed_sequence", head - 1, "trimmed_hash", "x")
    cut = await shell.run("audit", "verify")
    await store.link.call("HDEL", store.keys.chain, "trimmed_sequence", "trimmed_hash")
    assert (cut.exit_code, "were taken out: 1 are there" in cut.stdout) == (1, True)


async def test_a_route_that_was_written_by_hand_is_found(shell: Shell) -> None:
    await shell.worker.apply(ab(90, 10))
    store = shell.worker.store
    held = (await store.current("affine")).text
    await store.link.call("HSET", store.keys.routes, "affine", held.replace('"version":"1"', '"version":"2"'))
    told = await shell.run("audit", "verify")
    await store.link.call("HSET", store.keys.routes, "affine", held)
    assert (told.exit_code, "the route of 'affine' is not what entry" in told.stdout) == (1, True)


async def test_a_rollback_names_what_it_leaves_and_a_second_one_who_was_first(shell: Shell) -> None:
    first = await shell.worker.apply(ab(90, 10))
    second = await shell.worker.apply(ab(60, 40))
    left = await shell.worker.apply(ab(10, 90))
    plan = await shell.done("rollback", "affine", "--dry-run")
    assert f"revision {left} would be left, revision {second} would be active again; 50 % of the keys" in plan
    done = await shell.done("rollback", "affine")
    assert f"revision {left} is left, revision {second} is active again as revision {left + 1}" in done
    again = await shell.done("rollback", "affine")
    assert re.search(rf"already rolled back by \w+, \d+ ms ago: revision {second} is active", again)
    assert f"--expect-revision {left + 1}" in again
    value = await shell.value("rollback", "affine", "--expect-revision", str(left))
    assert (value["unchanged"], value["already"]["revision"]) == (True, left + 1)
    further = await shell.value("rollback", "affine", "--expect-revision", str(left + 1))
    assert (further["restored_revision"], further["already"]) == (first, None)
    stale = await shell.run("rollback", "affine", "--expect-revision", str(first))
    assert (stale.exit_code, "ABORTED" in stale.output) == (1, True)


async def test_shells_that_roll_back_at_once_go_one_step(shell: Shell) -> None:
    for share in (90, 80, 70, 60):
        left = await shell.worker.apply(ab(share, 100 - share))
    program = "from gateway.cli.app import main; main()"
    words = [sys.executable, "-c", program, "rollback", "affine", "--server", shell.worker.server]
    pipe = asyncio.subprocess.PIPE
    shells = [await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe) for _ in range(6)]
    outputs = [(await one.communicate())[0].decode() for one in shells]
    assert [one.returncode for one in shells] == [0] * len(shells)
    assert sum("is left" in output for output in outputs) == 1
    assert sum("already rolled back by" in output for output in outputs) == len(shells) - 1
    assert (await shell.worker.stub.GetRoute(control_pb2.GetRouteRequest(model="affine"))).revision == left + 1


async def test_a_second_flip_is_told_of_the_first(shell: Shell) -> None:
    await shell.worker.apply(blue_green())
    await shell.done("flip", "affine")
    again = await shell.run("flip", "affine")
    assert (again.exit_code, "already by" in again.stdout, "already done (flip) by" in again.stderr) == (0, True, True)


async def test_a_first_route_and_a_deletion_are_counted_from_what_serves(shell: Shell) -> None:
    file = shell.write("first.yaml", ab(90, 10))
    plan = await shell.done("plan", "-f", file)
    assert "100 % of the keys change their arm, 100 % their version" in plan
    assert re.search(r"- +4 +a +1 +90 %", plan)
    [applied] = await shell.value("routes", "apply", "-f", file)
    assert (applied["moved_percent"], applied["version_percent"]) == (100.0, 100.0)
    asked = await shell.done("routes", "delete", "affine", "--dry-run")
    assert "would lose its route" in asked
    done = await shell.done("routes", "delete", "affine")
    said = "version 4, the newest ready one, answers everybody: 100 % of the keys change their version"
    assert (said in asked, said in done) == (True, True)


async def test_what_is_seldom_meant_is_said(shell: Shell) -> None:
    rules = [{"name": "old", "match": {"id": {"exact": "1"}}, "arm": "a", "until": "2020-01-01"}]
    file = shell.write("old.yaml", ab(90, 10, rules=rules))
    for words in (("plan", "-f", file), ("routes", "apply", "-f", file), ("weights", "affine", "a=99.5", "b=0.5")):
        result = await shell.run(*words)
        assert result.exit_code == 0
        assert "gateway: warning: affine: spec.rules[old]: it expired at 2020-01-01T00:00:00Z" in result.stderr
    assert "warning: affine: weights.b: 0.5 is 0.5 %, not 50 %" in result.stderr
    text = canary().to_json().replace('"weight":"1%"', '"weight":0.1')[:-1] + ",}"
    result = await shell.run("routes", "apply", "-f", "-", text=text)
    assert result.exit_code == 0
    assert "warning: -: read as YAML, as it is no JSON: line 1, column " in result.stderr
    assert "steps[0].weight: 0.1 is 0.1 %, not 10 %; write 0.1% if that is meant" in result.stderr
    quiet = await shell.run("routes", "apply", "-f", shell.write("quiet.yaml", ab(90, 10)))
    assert "warning" not in quiet.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("flip", "affine"), 1, "FAILED_PRECONDITION"),
        (("flip", "nobody"), 1, "NOT_FOUND"),
        (("weights", "affine", "a=99"), 1, "sum to 99 %"),
        (("weights", "affine", "a"), 2, "'a' is not ARM=PERCENT"),
        (("weights", "affine", "a=1", "a=2"), 2, "named twice"),
        (("kill", "affine", "--reason", " "), 2, "needs a reason"),
        (("kill", "affine"), 2, "--reason"),
        (("pin", "affine", "z"), 1, "'z' is not an arm"),
        (("promote", "affine", "--expect-revision", "1"), 1, "ABORTED"),
        (("explain", "affine", "--metadata", "x"), 2, "NAME=VALUE"),
        (("explain", "affine", "--request-id", "never"), 1, "searched: the write-ahead logs"),
        (("heal",), 1, "has lost nothing"),
        (("export", "-o", "table"), 2, "-o table"),
        (("export", "-f", "/no/such/place/x.yaml"), 2, "cannot write"),
        (("import", "-f", "/no/such/file.yaml"), 2, "cannot read /no/such/file.yaml: No such file or directory\n"),
    ],
)
async def test_a_refusal_has_its_exit_code(shell: Shell, words: tuple[str, ...], code: int, said: str) -> None:
    revision = await shell.worker.apply(ab())
    result = await shell.run(*words)
    assert (result.exit_code, said in result.output) == (code, True), result.output
    assert "Traceback" not in result.output
    assert (await shell.value("routes", "list"))["routes"][0]["revision"] == revision


async def test_a_store_that_lost_writes_is_healed_and_it_is_said_who_follows(shell: Shell) -> None:
    revision = await shell.worker.apply(ab(90, 10))
    await shell.worker.store.link.call("SET", shell.worker.store.keys.revision, "1")
    assert "followed by 1 worker" in await shell.done("heal", "--reason", "a failover lost the last writes")
    await shell.worker.store.link.call("SET", shell.worker.store.keys.revision, "1")
    healed = await shell.value("heal")
    assert healed["revision"] > revision
    assert (len(healed["applied_by"]), healed["laggards"]) == (1, [])
    assert healed["replicas"] == {"known": 0, "confirmed": 0}


async def test_a_change_says_how_many_replicas_have_it() -> None:
    change = control_pb2.ChangeResponse(applied_us=12_300, applied_by=["a", "b"])
    assert took(change) == "12.3 ms by 2 workers"
    change.replicas.CopyFrom(control_pb2.Replicas(known=2, confirmed=1))
    assert took(change) == "12.3 ms by 2 workers, on 1 of 2 replicas"
    assert change_value(change)["replicas"] == {"known": 2, "confirmed": 1}


async def test_a_change_says_what_is_in_force_now(shell: Shell) -> None:
    file = shell.write("split.yaml", ab(90, 10))
    told = await shell.done("routes", "apply", "-f", file, "--dry-run")
    assert "affine: would be in force: a=90 % (version 1), b=10 % (version 2)" in told
    told = await shell.done("routes", "apply", "-f", file)
    assert "affine: in force now: a=90 % (version 1), b=10 % (version 2)" in told
    told = await shell.done("weights", "affine", "a=60", "b=40")
    assert "affine: in force now: a=60 % (version 1), b=40 % (version 2)" in told
    [change] = await shell.value("weights", "affine", "a=50", "b=50")
    assert change["shares"] == {"a": 50.0, "b": 50.0}
    told = await shell.done("kill", "affine", "--reason", "incident")
    assert "b=50 % (version 2); KILLED to a (incident)" in told
    told = await shell.done("rollback", "affine")
    assert "affine: in force now: a=50 % (version 1), b=50 % (version 2)\n" in told
    await shell.worker.apply(canary())
    assert "in force now" in await shell.done("promote", "affine")
    await shell.worker.apply(blue_green())
    assert "affine: in force now: blue=0 % (version 1), green=100 % (version 2)" in await shell.done("flip", "affine")


async def test_labels_are_set_moved_and_taken_away(shell: Shell) -> None:
    await shell.worker.apply(route({"main": {"label": "stable"}}, {"pinned": {"arm": "main"}}, labels={"stable": "1"}))
    told = await shell.done("label", "affine", "stable=2", "old=1", "--reason", "a week without complaints")
    assert "affine: in force now: main=100 % (version 2); labels old=1, stable=2" in told
    assert "labels stable=2" in await shell.done("label", "affine", "old=")
    assert "would be committed" in await shell.done("label", "affine", "stable=1", "--dry-run")
    result = await shell.run("label", "affine", "stable=")
    assert (result.exit_code, "stable" in result.stderr) == (1, True)
    result = await shell.run("label", "affine", "stable=99")
    assert (result.exit_code, "no version '99'" in result.stderr) == (1, True)
    assert (await shell.run("label", "affine", "stable")).exit_code == 2
    assert (await shell.run("label", "affine", "a=1", "a=2")).exit_code == 2
    told = await shell.done("routes", "history", "affine", "--limit", "2")
    assert "label" in told
    assert "a week without complaints" in told
    await shell.done("rollback", "affine")
    assert "labels old=1, stable=2" in await shell.done("routes", "list")
