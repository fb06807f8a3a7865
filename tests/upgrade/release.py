"""What is kept of a release: its documents, and what a gateway of it left on disk.

`python -m tests.upgrade.release` makes it.
A folder `tests/upgrade/<version>` is made once, by that release, before it is published, and never again: it is what
hosts have when the next release is installed on them. `test_formats.py` reads all of them.

    documents/   route documents, as people apply them
    data/        the data directory: store (Valkey's append-only file), rules (last known good), log (segments that were
                 not compacted, and the lake), state (what was loaded by hand, the key of feedback tokens)
    tokens, roles.yaml, quotas.yaml, audit.jsonl
    settings.jsonl  what its supervisor tells a worker, the compactor and the sinks: it goes on doing so while the next
                    release is installed, and SIGHUP or a crash starts them from the new files
    expected.json  what was in there, as that release said it
"""

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
import numpy as np
import redis

import gateway
from gateway.pb import inference_pb2 as pb
from gateway.routing.decision.decide import decide
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.store.last_known_good import load_newest
from gateway.routing.store.store_keys import StoreKeys
from gateway.runtime.child import Settings
from gateway.runtime.child_programs import for_compactor, for_sinks
from gateway.runtime.config_parser import parse
from tests import models
from tests.e2e.calls import stub
from tests.e2e.product import Product, command, until
from tests.routing.documents import Request

HERE: Final = Path(__file__).parent
KEYS: Final = [f"user-{number}" for number in range(200)]
_LEFT_OUT: Final = ("content", "run", "lock", "valkey.log", "valkey.sock", "*.corrupt")
ROUTED: Final = ("ab", "blue-green", "canary", "fallback", "pinned")


def decisions(snapshot: Snapshot) -> dict[str, list[str]]:
    """The arm of each key, model by model."""
    return {
        model: [decide(snapshot, model, Request({"x-user-id": key}), 0.5, 0.0).arm for key in KEYS]
        for model in sorted(snapshot.routes)
    }


def write_models(repository: Path) -> Path:
    """The models that the documents are about."""
    for model in ROUTED:
        for version, scale in (("1", 2.0), ("2", 3.0)):
            models.write_version(repository, model, version, models.affine(scale))
    return repository


def call(channel: grpc.Channel, model: str, user: str) -> str:
    """The feedback token of an answer."""
    message = pb.ModelInferRequest(model_name=model, id=f"{model}-{user}")
    message.inputs.add(name="x", datatype="FP32", shape=[2, 4])
    message.raw_input_contents.append(np.arange(8, dtype=np.float32).tobytes())
    _, done = stub(channel).ModelInfer.with_call(message, timeout=20, metadata=[("x-user-id", user)])
    return str(dict(done.trailing_metadata() or ()).get("x-gateway-token", ""))


def _documents(folder: Path) -> None:
    folder.mkdir()
    for source in sorted((HERE.parents[1] / "docs" / "examples").glob("*.yaml")):
        if source.stem in ROUTED:
            text = source.read_text().replace("model: digits", f"model: {source.stem}")
            (folder / source.name).write_text(text)


def settings_lines(work: Path) -> list[str]:
    """What the supervisor tells its children, with every option that has a default of its own."""
    config = parse({"data-dir": work / "data", "sink": "redis://127.0.0.1:6379?stream=rows"}, {}, {})
    settings = Settings(config, "worker", 0, "instance", "boot", 1)
    return [settings.to_json(), for_compactor(settings), for_sinks(settings)]


_JUDGED: Final = """
apiVersion: gateway/v1
kind: Route
metadata: {model: canary}
spec:
  arms: {stable: {version: "1"}, candidate: {version: "2"}}
  key: {from: ["metadata:x-user-id"]}
  strategy:
    canary: {stable: stable, canary: candidate, steps: [{weight: 10%, hold: 30m}, {weight: 50%, hold: 30m}]}
---
apiVersion: gateway/v1
kind: Route
metadata: {model: ab}
spec:
  arms: {a: {version: "1"}, b: {version: "2"}}
  key: {from: ["metadata:x-user-id"], onMissing: control}
  strategy:
    ab:
      control: a
      weights: {a: 50%, b: 50%}
      bandit: {metric: reward, posterior: beta, interval: 10m, minEvents: 100, floor: 5%, discount: 0.95}
"""


def judged(work: Path) -> dict[str, dict[str, str]]:
    """What the judge of this release keeps in the store of a canary that is running, and of a bandit."""
    product = Product(work / "gw", write_models(work / "models"))
    try:
        product.start()
        for number, text in enumerate(_JUDGED.split("---")):
            _said(product.cli("routes", "apply", "-f", "-", "--reason", f"document {number}", text=text))
        with redis.Redis(unix_socket_path=str(product.data / "run" / "valkey.sock")) as store:
            keys = StoreKeys("default")

            def kept() -> dict[str, dict[str, str]]:
                read = {"rollouts": store.hgetall(keys.rollouts), "bandits": store.hgetall(keys.bandits)}
                return {
                    name: {key.decode(): value.decode() for key, value in one.items()} for name, one in read.items()
                }

            until(lambda: all(kept().values()), 60, "the judge has begun with both")
            return kept()
    finally:
        product.kill()


def _said(result: Any) -> str:
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def make(target: Path) -> None:
    """Runs a gateway of this release, and keeps what it leaves."""
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        _documents(target / "documents")
        expected: dict[str, Any] = {"release": gateway.__version__, "served": 0, "feedback": 0}
        product = Product(work / "gw", write_models(work / "models"))
        try:
            product.start()
            for path in sorted((target / "documents").glob("*.yaml")):
                _said(product.cli("routes", "apply", "-f", str(path), "--reason", "first"))
            _said(product.cli("weights", "ab", "a=70", "b=30", "--reason", "more of a"))
            _said(product.cli("weights", "ab", "a=20", "b=80", "--reason", "more of b"))
            _said(product.cli("kill", "blue-green", "--reason", "incident", "--arm", "green"))
            _said(product.cli("unkill", "blue-green"))
            _said(product.cli("rollback", "ab", "--reason", "as before"))
            _said(product.cli("label", "pinned", "stable=1", "--reason", "a week"))
            _said(product.cli("draft", "write", "-f", str(target / "documents" / "pinned.yaml"), "--reason", "later"))
            _traffic(product, expected)
            token = expected["token"]
            _said(product.cli("feedback", "send", "ab", "--token", token, "--label", "1"))
            expected["feedback"] += 1
            product.stop()  # all of it is in the lake
            product.start()
            _traffic(product, expected)  # and this is not
            wal = product.data / "log" / "wal"
            until(lambda: any(path.stat().st_size > 1000 for path in wal.glob("*")), 20, "rows on the disk")
            expected["routes"] = json.loads(_said(product.cli("routes", "list", "-o", "json")))
            expected["history"] = json.loads(_said(product.cli("routes", "history", "ab", "-o", "json")))
            _said(product.cli("audit", "export", "-f", str(target / "audit.jsonl")))
        finally:
            product.kill()
        shutil.copytree(product.data, target / "data", ignore=shutil.ignore_patterns(*_LEFT_OUT))
    snapshot = load_newest(target / "data" / "rules" / "worker-0")
    assert snapshot is not None
    expected["revision"] = snapshot.revision
    expected["decisions"] = decisions(snapshot)
    (target / "settings.jsonl").write_text("\n".join(settings_lines(Path("/var/lib/gateway"))) + "\n")
    for role in ("infer", "operator"):
        made = command("token", "new", "--role", role, "--name", f"{role}-of-the-release", "-f", str(target / "tokens"))
        assert made.returncode == 0, made.stderr
    for name, source in (("roles.yaml", "security.md"), ("quotas.yaml", "quotas.md")):
        page = (HERE.parents[1] / "docs" / source).read_text()
        (target / name).write_text(page.split("```yaml\n", 1)[1].split("```", 1)[0])
    with TemporaryDirectory() as temporary:
        (target / "judged.json").write_text(json.dumps(judged(Path(temporary)), indent=1, sort_keys=True) + "\n")
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


def _traffic(product: Product, expected: dict[str, Any]) -> None:
    with grpc.insecure_channel(product.server) as channel:
        for model in ROUTED:
            for user in KEYS[:6]:
                token = call(channel, model, user)
                expected["served"] += 1
                if model == "ab":
                    expected["token"] = token


if __name__ == "__main__":
    folder = HERE / gateway.__version__
    if folder.exists():
        sys.exit(f"{folder} is there: what a release left is made once")
    folder.mkdir()
    try:
        make(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
