"""What commands show of routes, their history and their decisions."""

import re

import pytest
import yaml

from gateway.cli.explain import KEYS_PER_CALL
from gateway.pb import control_pb2
from tests.api.routes import ab, canary, route
from tests.cli.conftest import Shell

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_revisions_are_shown_and_compared(shell: Shell) -> None:
    first = str(await shell.worker.apply(ab(90, 10)))
    second = str(await shell.worker.apply(ab(60, 40)))
    assert "30 % of the keys change their arm" in await shell.done("routes", "diff", "affine", first, second)
    value = await shell.value("routes", "diff", "affine", first)
    assert (value["to_revision"], len(value["differences"])) == (int(second), 2)
    shown = yaml.safe_load(await shell.done("routes", "show", "affine", first))
    assert shown["document"] == ab(90, 10).to_value()
    assert shown["operation"] == "apply"
    result = await shell.run("routes", "show", "affine", "999999")
    assert (result.exit_code, "no revision 999999" in result.stderr) == (1, True)


async def test_a_decision_is_explained(shell: Shell) -> None:
    rule = {"name": "adult", "match": {"parameters": {"age": {"range": {"min": 18}}}}, "arm": "b"}
    await shell.worker.apply(ab(key={"from": ["metadata:x-user"]}, rules=[rule]))
    text = await shell.done("explain", "affine", "--key", "user-1")
    assert re.search(r"key +noted +metadata:x-user is 'user-1'", text)
    assert re.search(r"decision: arm [ab], version [12], revision \d+, SPLIT", text)
    value = await shell.value("explain", "affine", "--parameter", "age=19")
    assert (value["decision"]["arm"], value["decision"]["reason"]) == ("b", "RULE:adult")
    value = await shell.value("explain", "affine", "--version", "3")
    assert (value["decision"], value["error"]["code"]) == (None, "NOT_FOUND")


async def test_keys_of_a_file_are_simulated_in_parts(shell: Shell) -> None:
    count = KEYS_PER_CALL + 500
    key = {"from": ["metadata:x-user"]}
    await shell.worker.apply(ab(100, 0, key=key))
    keys = shell.directory / "keys.txt"
    keys.write_text("".join(f"user-{number}\n\n" for number in range(count)))
    draft = shell.write("draft.yaml", ab(75, 25, key=key))
    value = await shell.value("simulate", "-f", draft, "--keys", str(keys))
    assert value["counted"] == count
    assert abs(value["shares"]["b"] - 0.25) < 0.05
    assert value["moved"] == round(count * value["shares"]["b"])
    text = await shell.done("simulate", "-f", draft, "--keys", "-", text=keys.read_text())
    assert f"{value['moved']} (" in text
    assert "searched: the write-ahead logs" in await shell.done("simulate", "-f", draft)


async def test_long_keys_of_a_file_are_simulated_in_more_parts(shell: Shell) -> None:
    """As many keys as one call takes are more than a message may hold."""
    key = {"from": ["metadata:x-user"]}
    await shell.worker.apply(ab(100, 0, key=key))
    keys = shell.directory / "long-keys.txt"
    keys.write_text("".join(f"{number:-<1000}\n" for number in range(2500)))
    draft = shell.write("draft.yaml", ab(75, 25, key=key))
    assert (await shell.value("simulate", "-f", draft, "--keys", str(keys)))["counted"] == 2500


async def test_the_status_is_one_page(shell: Shell) -> None:
    await shell.worker.apply(canary(step=2))
    text = await shell.done("status")
    assert re.search(
        r"affine +canary +\d+ +canary=25% \(version 2\), stable=75% \(version 1\)", text.replace(" %", "%")
    )
    assert re.search(r"w0 +LIVE", text)
    value = await shell.value("status")
    assert value["routes"][0]["shares"] == {"stable": 75.0, "canary": 25.0}


EVERYTHING = route(
    {"stable": {"version": "1"}, "next": {"label": "new"}, "spare": {"version": "3"}},
    {"ab": {"control": "stable", "weights": {"stable": "80%", "next": "20%"}, "holdout": "5%"}},
    labels={"new": "2"},
    rules=[
        {"name": "beta", "match": {"metadata": {"x-channel": {"exact": "beta"}}}, "arm": "next"},
        {
            "name": "past",
            "match": {"metadata": {"x-a": {"exact": "b"}}},
            "arm": "next",
            "until": "2020-01-01T00:00:00Z",
        },
    ],
    fallback={"order": ["stable", "spare"]},
    mirrors=[{"arm": "spare", "percent": "10%"}],
)


ALSO = (
    "holdout answered by stable; rules beta -> next, past -> next (expired); labels new=2; "
    "fallback to stable, then spare; mirrors spare 10 %"
)


async def test_pages_show_whatever_decides(shell: Shell) -> None:
    await shell.worker.apply(EVERYTHING)
    for words in (["status"], ["routes", "list"]):
        text = await shell.done(*words)
        assert "stable=76 % (version 1)" in text
        assert "holdout=5 % (version 1)" in text
        assert ALSO in text
    shown = await shell.done("routes", "get", "affine", "-o", "table")
    assert re.search(r"holdout +1 +5 %", shown)
    assert "fallback to stable, then spare" in shown
    await shell.worker.apply(canary())
    assert re.search(r"step \d of \d", await shell.done("status"))


async def test_the_history_shows_shares(shell: Shell) -> None:
    await shell.worker.apply(ab(90, 10))
    await shell.done("weights", "affine", "a=60", "b=40")
    await shell.done("kill", "affine", "--arm", "b", "--reason", "incident")
    await shell.done("routes", "delete", "affine")
    lines = (await shell.done("routes", "history", "affine", "--limit", "4")).splitlines()[2:]
    expected = ["no route", "KILLED to b; a=60 %, b=40 %", "a=60 %, b=40 %", "a=90 %, b=10 %"]
    assert [wanted in line for wanted, line in zip(expected, lines, strict=True)] == [True] * 4


async def test_texts_of_others_do_not_steer_the_terminal(shell: Shell) -> None:
    evil = "fine \x1b[2J\x1b]0;owned\x07\nmodel  r999 \u202eetelede"
    change = control_pb2.Change(actor=f"eve{evil}", reason=evil, source=evil[:20])
    document = ab(70, 30).to_json()
    applied = await shell.worker.stub.Apply(control_pb2.ApplyRequest(document_json=document, change=change))
    await shell.worker.stub.Draft(control_pb2.DraftRequest(document_json=ab(60, 40).to_json(), change=change))
    revision = str(applied.change.revision)
    for words in (
        ["audit"], ["routes", "history", "affine"], ["routes", "show", "affine", revision, "-o", "table"],
        ["draft", "list"],
    ):  # fmt: skip
        text = await shell.done(*words)
        assert all(character.isprintable() or character == "\n" for character in text), words
        assert r"\x1b[2J" in text
        assert [line for line in text.splitlines() if line.startswith("model  r999")] == []
