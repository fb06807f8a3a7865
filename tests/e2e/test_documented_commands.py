"""Commands of README and docs that a running gateway is needed for, as they stand there and in their order.

Which ones these are says tests/docs/command_ledger.py. What a page can only give an example of (a request id, a moment,
the number of an entry) is put in place of it.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from loadtests.samples import Sample, request
from tests.docs.command_ledger import row_of
from tests.docs.shell_commands import ROOT, shell_commands
from tests.e2e.calls import infer, stub
from tests.e2e.conftest import Demo, connect
from tests.e2e.product import GATEWAY, Product, environment, until
from tests.machine_load import as_loaded

PLACE = "tests/e2e/test_documented_commands.py"
ROWS = 300
Prepared = Mapping[str, Callable[["Desk"], None]]


def commands_for(test: str) -> list[tuple[str, str]]:
    """Page and command, of those that `test` has to run."""
    return [
        (command.page, command.text)
        for command in shell_commands()
        if (row := row_of(command)) is not None and row.test == f"{PLACE}::{test}"
    ]


class Desk:
    """A folder with what commands name, before a running gateway. `instead` is put in place of what a page shows."""

    def __init__(self, product: Product, demo: Demo, folder: Path) -> None:
        self.product, self.demo, self.folder = product, demo, folder
        self.instead: dict[str, str] = {}
        self.token = ""

    def run(self, text: str, codes: tuple[int, ...] = (0,)) -> str:
        """What the command says. Raises: AssertionError if it ends otherwise."""
        for shown, real in self.instead.items():
            text = text.replace(shown, real)
        text = text.replace(".venv/bin/", f"{GATEWAY.parent}/").replace("docs/examples/", f"{ROOT}/docs/examples/")
        variables = {
            **environment(),
            "GATEWAY_SERVER": self.product.server,
            "GATEWAY_DATA_DIR": str(self.product.data),
            "PATH": f"{GATEWAY.parent}{os.pathsep}{os.environ['PATH']}",
            "TOKEN": self.token,
            "LOGNAME": "ben" if text.startswith("gateway draft approve") else "ann",  # nobody approves their own
        }
        done = subprocess.run(
            ["sh", "-c", text], cwd=self.folder, env=variables, capture_output=True, text=True, timeout=as_loaded(120)
        )
        assert done.returncode in codes, f"{text}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def send(self, model: str, samples: list[Sample]) -> None:
        """Sends requests r0, r1, ..., each of a key of its own."""
        with connect(self.product) as channel:
            for number, sample in enumerate(samples):
                infer(channel, model, sample, key=[("x-user-id", f"user-{number}")], request_id=f"r{number}")


@pytest.fixture
def desk(start_product: Callable[..., Product], demo: Demo, tmp_path: Path) -> Desk:
    return Desk(start_product("documented"), demo, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_tour_of_the_readme(desk: Desk) -> None:
    desk.instead = {"infer.py": f"infer.py {desk.product.server}", "/tmp/": f"{desk.folder}/"}
    address = f" --server {desk.product.server}"
    said: dict[str, list[str]] = {}
    for page, text in commands_for("test_the_tour_of_the_readme"):
        assert page == "README.md"
        if "-m loadtests" not in text:
            if "rollout show" in text:
                until(lambda: "watching" in desk.run("gateway rollout show digits", (0, 1)), 20, "the flip")
            said.setdefault(text, []).append(desk.run(text))
            continue
        # What a busy machine can do is not known: 1 and 4 tell of budgets of time. Answers are checked all the same.
        short = {"run": "--seconds 2 --warm-up 0", "capacity": "--seconds 1"}.get(text.split()[3], "--seconds 4")
        told = desk.run(f"PYTHONPATH={ROOT} {text} {short}{address}", (0, 1, 4))
        assert "wrong 0" in told or '"wrong": 0' in told or "0 wrong" in told or "wrong" not in told, told
    inferred = said[".venv/bin/python docs/examples/infer.py"]
    assert [re.search(r"version (\d)", text)[1] for text in inferred][:2] == ["2", "1"]  # type: ignore[index]
    assert "is active again" in said[".venv/bin/gateway rollback digits --reason 'the tour'"][0]


# ---- operators ----

ROUTE = {
    "apiVersion": "gateway/v1",
    "kind": "Route",
    "metadata": {"model": "flights"},
    "spec": {
        "arms": {"stable": {"version": "1"}, "canary": {"version": "2"}},
        "key": {"from": ["metadata:x-user-id"]},
        "strategy": {"canary": {"stable": "stable", "canary": "canary", "weight": "10%"}},
    },
}


def experiment(strategy: object) -> dict[str, object]:
    """A document for flight_delay, two arms by key."""
    arms = {"a": {"version": "1"}, "b": {"version": "2"}}
    key = {"from": ["metadata:x-user-id"], "salt": "t"}
    return {
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": {"model": "flight_delay"},
        "spec": {"arms": arms, "key": key, "strategy": strategy},
    }


def lay_out(desk: Desk) -> None:
    """Writes what the pages name."""
    folder, sample = desk.folder, desk.demo.rows("digits")[0]
    shutil.copytree(desk.product.repository / "digits" / "2", folder / "export")
    image, label = np.frombuffer(sample.raw[0], "<f4").tolist(), np.ravel(sample.expected["2"]["label"]).tolist()
    golden = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": image}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [1, 1], "data": label}],
    }
    (folder / "golden.jsonl").write_text(json.dumps(golden) + "\n")
    (folder / "route.yaml").write_text(yaml.safe_dump(ROUTE))
    (folder / "other.yaml").write_text(
        yaml.safe_dump(experiment({"ab": {"control": "a", "weights": {"a": 20, "b": 80}}}))
    )
    (folder / "users.txt").write_text("".join(f"user-{number}\n" for number in range(1000)))
    (folder / "labels.csv").write_text("model,request_id,label\nflights,r1,0\nflights,r2,1\n")
    (folder / "routes").mkdir()
    (folder / "routes" / "flights.yaml").write_text(yaml.safe_dump(ROUTE))
    with np.load(desk.demo.samples / "digits.npz") as arrays, (folder / "training.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"image_{number}" for number in range(64)])
        writer.writerows(row.tolist() for row in arrays["inputs/image"])


def judge(desk: Desk) -> None:
    """The judge of rollouts has left an entry in the trail: it has flipped a route to a version that is ready."""
    arms = {"blue": {"version": "1"}, "green": {"version": "2"}}
    flip = {"active": "blue", "preview": "green", "promote": "auto", "postPromotion": {"watch": "1m"}}
    document = {**ROUTE, "metadata": {"model": "judged"}, "spec": {"arms": arms, "strategy": {"blueGreen": flip}}}
    (desk.folder / "judged.yaml").write_text(yaml.safe_dump(document))
    desk.run("gateway apply -f judged.yaml --reason t")
    until(lambda: "watching" in desk.run("gateway rollout show judged", (0, 1)), 20, "the flip")


def fill(desk: Desk) -> None:
    """Two models have rows in Parquet, of the flights also with rewards; and `7f3a` is a request of two models."""
    (desk.folder / "test.yaml").write_text(
        yaml.safe_dump(
            experiment({"ab": {"control": "a", "weights": {"a": "50%", "b": "50%"}, "metrics": [{"name": "reward"}]}})
        )
    )
    desk.run("gateway apply -f test.yaml --reason t")
    desk.run("gateway apply -f route.yaml --reason t")
    flights, digits = desk.demo.rows("flight_delay"), desk.demo.rows("digits")
    desk.send("flight_delay", [flights[number % len(flights)] for number in range(ROWS)])
    desk.send("flights", flights[:30])
    desk.send("digits", [digits[number % len(digits)] for number in range(ROWS)])
    for model, sample in (("flights", flights[0]), ("digits", digits[0])):
        with connect(desk.product) as channel:
            _, call = stub(channel).ModelInfer.with_call(request(model, sample, "7f3a"), timeout=20)
        desk.token = str(dict(call.trailing_metadata())["x-gateway-token"])
    lines = "".join(f"flight_delay,r{number},{number % 7 / 7}\n" for number in range(ROWS))
    (desk.folder / "rewards.csv").write_text(f"model,request_id,reward\n{lines}")
    desk.run("gateway feedback send -f rewards.csv")
    desk.product.stop()
    desk.product.start()


def draft_there(desk: Desk) -> None:
    [draft] = json.loads(desk.run("gateway draft list -o json"))
    desk.instead["1f0c2a9be77d"] = draft["id"]


def entries_there(desk: Desk) -> None:
    """The numbers of entries of the trail: its newest, and the newest that the judge has made."""
    desk.run("gateway audit export -f found.jsonl")
    head, *entries = map(json.loads, (desk.folder / "found.jsonl").read_text().splitlines())
    judged = [entry["sequence"] for entry in entries if entry["actor"] == "judge"]
    desk.instead["4711:9f2c..."] = f"{head['head']['sequence']}:{head['head']['hash']}"
    desk.instead["--verdict 4711"] = f"--verdict {judged[-1]}"


def judged_ended(desk: Desk) -> None:
    """No rollout runs, which would refuse documents in its place; on a slow machine it has ended by itself."""
    desk.run("gateway rollout abort judged --reason t", (0, 1))
    until(lambda: "watching" not in desk.run("gateway rollout list", (0, 1)), 20, "the end of the rollout")


def revision_there(desk: Desk) -> None:
    """The newest revision of the route."""
    newest = re.search(r"^(\d+) ", desk.run("gateway routes history flights"), re.MULTILINE)
    assert newest is not None
    desk.instead["--revision 12"] = f"--revision {newest[1]}"


PREPARED: Prepared = {
    "gateway explain flights --bucket": revision_there,
    "gateway draft show": draft_there,
    "gateway import": judged_ended,
    "gateway audit verify --anchor": entries_there,
}
# With what a command may end, where it is not 0: what it found is bad, on a host that nobody prepared; nothing is lost.
ENDS = {"gateway doctor": (0, 1), "gateway diff": (0, 1), "gateway results": (0, 1), "gateway heal": (0, 1)}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_operators_commands_do_what_they_say(desk: Desk) -> None:
    models = desk.product.repository
    for name, origin in (("flights", "flight_delay"), ("judged", "digits")):
        staged = models.with_name(name)
        shutil.copytree(models / origin, staged)
        for path in staged.glob("config.pbtxt"):
            path.write_text(path.read_text().replace(origin, name))
        staged.rename(models / name)
    lay_out(desk)
    for name in ("flights", "judged"):
        until(lambda name=name: "AVAILABLE" in desk.run(f"gateway models {name}", (0, 1)), 60, name)  # type: ignore[misc]
    judge(desk)
    fill(desk)
    now = datetime.now(UTC)
    window = f"{now - timedelta(hours=2):%Y-%m-%dT%H:%M}..{now + timedelta(hours=1):%Y-%m-%dT%H:%M}"
    desk.instead |= {
        "--model-repository models": f"--model-repository {models}",
        "/etc/model-serving-gateway/gateway.yaml": str(desk.folder / "gateway.yaml"),
        "2026-11-01..2026-11-08": window,
    }
    (desk.folder / "gateway.yaml").write_text(f"model-repository: {models}\n")
    wrong: list[str] = []
    for page, text in commands_for("test_operators_commands_do_what_they_say"):
        for beginning, prepare in PREPARED.items():
            if text.startswith(beginning):
                prepare(desk)
        codes = next((codes for beginning, codes in ENDS.items() if text.startswith(beginning)), (0,))
        try:
            print(page, text, desk.run(text, codes)[:300], sep="\n")
        except AssertionError as error:
            wrong.append(f"{page}: {error}")
    assert not wrong, "\n\n".join(wrong)


# ---- starts ----


def write_certificates(folder: Path) -> None:
    """A server's and a caller's certificate, and who has signed them, by the names of the page; and a public key."""
    servers, callers = trustme.CA(), trustme.CA()
    servers.cert_pem.write_to_path(folder / "ca.pem")
    callers.cert_pem.write_to_path(folder / "clients.pem")
    for name, issued in (("server", servers.issue_cert("127.0.0.1")), ("me", callers.issue_cert("me@example.org"))):
        (folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "public.pem").write_bytes(public.public_bytes(*form))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gateway_starts_as_a_page_says(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_certificates(tmp_path)
    monkeypatch.chdir(tmp_path)
    product: Product | None = None
    try:
        for number, (page, text) in enumerate(commands_for("test_a_gateway_starts_as_a_page_says")):
            words = shlex.split(text)
            if words[1] == "serve":
                if product is not None:
                    product.kill()
                options = [word for word in words[2:] if word not in ("--model-repository", "models")]
                product = Product(tmp_path / f"started-{number}", demo.repository, *options).start()
                assert "is ready" in product.banner, page
                continue
            assert product is not None
            address = f"127.0.0.1:{product.state()['ports']['grpc']}"
            done = subprocess.run(
                [GATEWAY, *(address if word == "gateway.example:8001" else word for word in words[1:])],
                capture_output=True,
                text=True,
                timeout=as_loaded(60),
                env=environment(),
            )
            assert done.returncode == 0, done.stderr
            assert "digits" in done.stdout
    finally:
        if product is not None:
            product.kill()
