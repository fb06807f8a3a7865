"""This release reads what the releases before it wrote: documents, store, rules on disk, log, state, files of access.

What is in `tests/upgrade/<version>` was written by that release and is never made anew (`release.py`).
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from gateway.access.quota_file import read_rules
from gateway.access.roles_file import parse_roles
from gateway.access.token_file import parse_tokens
from gateway.api.feedback_token import Tokens, load_key
from gateway.cli.app import app
from gateway.drift.report.lake_reader import Lake
from gateway.records.lake.compactor import CompactorConfig
from gateway.records.sinks.sinks_process import SinksConfig
from gateway.rollout.bandit_record import BanditRecord
from gateway.rollout.rollout_record import RolloutRecord
from gateway.routing.document.notation import parse_yaml
from gateway.routing.store.audit_chain import Recorded, compare, first_fault
from gateway.routing.store.audit_trail import chain, routes_in_force, sight
from gateway.routing.store.audit_witness import Note, compared
from gateway.routing.store.change import Change
from gateway.routing.store.last_known_good import load_newest
from gateway.runtime.child import Settings
from gateway.runtime.config import decode
from gateway.serving.intents import IntentStore
from tests.e2e.product import Product
from tests.records.traffic import compactor, lake_rows
from tests.routing.live import control_of, feed, live, running, store_of, until
from tests.upgrade.release import HERE, ROUTED, decisions, write_models
from tests.valkey import Valkey

RELEASES = sorted(path.name for path in HERE.iterdir() if (path / "expected.json").exists())


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> Path:
    return HERE / str(request.param)


@pytest.fixture
def expected(release: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((release / "expected.json").read_text())
    return value


@pytest.fixture
def data(release: Path, tmp_path: Path) -> Path:
    """A copy of what the release left, to be written to."""
    return Path(shutil.copytree(release / "data", tmp_path / "data"))


@pytest.fixture
def store(data: Path) -> Iterator[Valkey]:
    server = Valkey(data / "valkey").start()
    yield server
    server.stop()


def test_there_is_a_release_to_read() -> None:
    assert "0.1.0" in RELEASES


def test_its_documents_mean_what_they_meant(release: Path, expected: dict[str, Any]) -> None:
    documents = {path.stem: parse_yaml(path.read_text())[0] for path in (release / "documents").glob("*.yaml")}
    assert set(documents) == set(ROUTED)
    assert all(document.model == name for name, document in documents.items())
    for held in expected["routes"]["routes"]:
        [document] = parse_yaml(json.dumps(held["document"]))
        assert document.versions() == documents[document.model].versions()


def test_its_rules_on_disk_decide_as_they_did(data: Path, expected: dict[str, Any]) -> None:
    snapshot = load_newest(data / "rules" / "worker-0")
    assert snapshot is not None
    assert snapshot.revision == expected["revision"]
    assert decisions(snapshot) == expected["decisions"]
    assert not list((data / "rules").glob("*.corrupt"))


async def test_its_store_is_followed_changed_and_rolled_back(
    store: Valkey, data: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    worker = feed(store.url, tmp_path)
    async with running(worker), store_of(store.url) as rules:
        await until(lambda: live(worker) and worker.snapshot.revision == expected["revision"])
        assert decisions(worker.snapshot) == expected["decisions"]
        control = control_of(rules, worker)
        history = await control.history("ab")
        assert [one.entry.revision for one in history] == [one["revision"] for one in expected["history"]]
        page = await chain(rules)
        assert first_fault(page.entries, anchor=page.anchor, head=page.head) is None
        assert compare(page.entries, await routes_in_force(rules)) == Recorded((), ())
        noted = msgspec.json.decode((data / "rules" / "audit-0").read_bytes(), type=Note)
        note = compared(noted, await sight(rules, noted.sequence)).note
        assert note is not None
        assert note.link == page.head
        # The next change, and a step back into what the release before has written.
        by = Change(actor="tester", reason="upgraded", source="cli")
        changed = await control.rollback("ab", change=by)
        assert changed.revision == expected["revision"] + 1
        page = await chain(rules)
        assert first_fault(page.entries, anchor=page.anchor, head=page.head) is None


def holds(read: object, said: object) -> bool:
    """Whether all that was said is read; a later release may have more fields."""
    if isinstance(said, dict):
        return isinstance(read, dict) and all(name in read and holds(read[name], one) for name, one in said.items())
    if isinstance(said, list):
        return isinstance(read, list) and len(read) == len(said) and all(map(holds, read, said))
    return read == said


def test_what_its_judge_kept_is_taken_up(release: Path) -> None:
    """A rollout and a bandit that are under way, with all evidence that there is."""
    kept = json.loads((release / "judged.json").read_text())
    rollout = msgspec.json.decode(kept["rollouts"]["canary"], type=RolloutRecord)
    bandit = msgspec.json.decode(kept["bandits"]["ab"], type=BanditRecord)
    for record, text in ((rollout, kept["rollouts"]["canary"]), (bandit, kept["bandits"]["ab"])):
        assert holds(json.loads(msgspec.json.encode(record)), json.loads(text))


def test_its_audit_trail_is_whole(release: Path) -> None:
    verified = CliRunner().invoke(app, ["audit", "verify", "-f", str(release / "audit.jsonl")])
    assert verified.exit_code == 0, verified.output


def test_its_log_is_compacted_and_every_row_is_there_once(data: Path, expected: dict[str, Any]) -> None:
    log = data / "log"
    before = lake_rows(log / "lake")
    compactor(log / "wal", log / "lake").step()
    rows = lake_rows(log / "lake")
    assert 0 < len(before) < len(rows) == 2 * expected["served"]  # two instances in each request
    assert len({(row["boot"], row["ts"], row["request_id"], row["row_index"]) for row in rows}) == len(rows)
    with Lake(log / "lake") as lake:
        answer = lake.query("SELECT count(*) FROM predictions WHERE model = 'ab'")
        [(count,)] = answer.rows
        assert count == 2 * expected["served"] // len(ROUTED)
        assert lake.label_count("ab") == expected["feedback"]


def test_its_state_is_kept(data: Path, expected: dict[str, Any]) -> None:
    intents = IntentStore(data / "state").read()
    assert set(intents.pins) == set(ROUTED)
    token = Tokens(load_key(data / "state" / "token.key")).verify(expected["token"])
    assert (token.model, token.is_of("ab-user-5")) == ("ab", True)


def test_its_files_of_access_are_read(release: Path) -> None:
    tokens = parse_tokens((release / "tokens").read_text())
    assert {token.name for token in tokens} == {"infer-of-the-release", "operator-of-the-release"}
    parse_roles((release / "roles.yaml").read_text())
    read_rules((release / "quotas.yaml").read_text())


def test_what_its_supervisor_tells_is_understood(release: Path) -> None:
    """It starts children of this release once that is installed beside it."""
    worker, compactor_, sinks = (release / "settings.jsonl").read_text().splitlines()
    settings = decode(worker, Settings)
    assert (settings.role, settings.config.embedded_store) == ("worker", True)
    assert CompactorConfig.from_json(compactor_).lake_directory == str(settings.config.lake_dir)
    assert SinksConfig.from_json(sinks).sinks == settings.config.log.sinks


@pytest.mark.long
def test_a_gateway_goes_on_where_that_release_stopped(
    release: Path, data: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    product = Product(tmp_path, write_models(tmp_path / "models"))
    assert product.data == data
    try:
        product.start()
        listed = json.loads(product.cli("routes", "list", "-o", "json").stdout)
        assert listed == expected["routes"]
        assert product.cli("audit", "verify").exit_code == 0
        assert product.cli("rollback", "ab", "--reason", "upgraded").exit_code == 0
        sent = product.cli("feedback", "send", "ab", "--token", expected["token"], "--label", "0")
        assert sent.exit_code == 0, sent.output
        product.stop()
    finally:
        product.kill()
    rows = lake_rows(product.data / "log" / "lake")
    assert len(rows) == 2 * expected["served"]
