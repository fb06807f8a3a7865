"""`python -m loadtests tenants`: one tenant at ten times its quota, and what another one notices of it.

A gateway of its own is started with two tenants that have the same quota. One of them stays within it and is measured,
alone and beside the other's flood, turn by turn, so that what else the machine does is in both. Its p99 must stay
within 1.5 times of what it was alone (median of the turns), and none of its calls may fail.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import uvloop

from gateway.access.token_file import digest_of, new_token
from loadtests import budgets
from loadtests.bench import cases
from loadtests.bench.models import MODELS
from loadtests.bench.servers import HOST, ServerFailed, free_port, gateway_command, running
from loadtests.open_loop import OK, Outcome, Traffic, drive

TENANTS: Final = ("steady", "flood")
QUOTA_PER_SECOND: Final = 100.0
TURNS: Final = 3
_START_S: Final = 90.0
_PAUSE_S: Final = 0.5


def token_of(tenant: str) -> str:
    return new_token(tenant.encode().ljust(32, b"."))


def quota_file() -> str:
    """Each tenant has a bucket of its own, and room for a tenth of a second at once: a flood comes in no bursts."""
    limits = {"requests-per-second": QUOTA_PER_SECOND, "burst": QUOTA_PER_SECOND / 5, "concurrency": 16}
    return json.dumps({"quotas": [{"name": "tenants", "tenants": ["*"], "per": "tenant", **limits}]})


def tokens_file() -> str:
    return "\n".join(
        f"sha256:{digest_of(token_of(tenant).encode()).hex()} name={tenant} tenant={tenant} role=infer models=*"
        for tenant in TENANTS
    )


def traffic_of(tenant: str, body: bytes, per_second: float) -> Traffic:
    bearer = (b"authorization", b"Bearer " + token_of(tenant).encode())
    return Traffic(body, per_second, deadline_s=1.0, headers=(bearer,))


@contextmanager
def limited_gateway(work: Path, repository: Path, body: bytes, transport: str) -> Iterator[str]:
    """A gateway with the two tenants and their quotas; gives its address. Raises: ServerFailed."""
    (work / "quotas.yaml").write_text(quota_file())
    (work / "tokens").write_text(tokens_file())
    (work / "tokens").chmod(0o600)
    address = f"{HOST}:{free_port()}"
    command = [
        *gateway_command(), "serve", "--model-repository", str(repository), "--data-dir", str(work / "data"),
        "--grpc-port", address.rpartition(":")[2], "--metrics-port", str(free_port()), "--http-port", "-1",
        "--workers", "1",
        "--transport", transport, "--max-connections-per-address", "0",
        "--quotas", str(work / "quotas.yaml"), "--access-tokens", str(work / "tokens"),
    ]  # fmt: skip
    with running(command, work / "output.txt") as process:
        end = time.monotonic() + _START_S
        while time.monotonic() < end and process.poll() is None:
            try:
                (outcome,) = uvloop.run(drive(address, [traffic_of("steady", body, 20.0)], 0.2))
                if outcome.codes[OK]:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        else:
            raise ServerFailed((work / "output.txt").read_text(errors="replace")[-1500:])
        yield address


def send(address: str, traffic: Traffic, seconds: float, seed: int) -> Outcome:
    """What becomes of one tenant's calls; each tenant has a process of its own, as clients have."""
    (outcome,) = uvloop.run(drive(address, [traffic], seconds, seed=seed))
    return outcome


def run(options: Namespace) -> int:
    """Runs the scenario; returns 0 if every gate held."""
    alone, beside, failed, refused = [], [], 0, 0
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="tenants-") as scratch, ProcessPoolExecutor(2, mp_context=context) as pool:
        work = Path(scratch)
        (case,) = cases.make([MODELS["mlp"]], work)
        body = case.body.read_bytes()
        steady = traffic_of("steady", body, 0.5 * QUOTA_PER_SECOND)
        flood = traffic_of("flood", body, 10 * QUOTA_PER_SECOND)
        with limited_gateway(work, case.repository, body, options.transport) as address:
            for turn in range(TURNS):
                time.sleep(_PAUSE_S)
                quiet = pool.submit(send, address, steady, options.step_seconds, turn).result()
                time.sleep(_PAUSE_S)
                flooding = pool.submit(send, address, flood, options.step_seconds, 100 + turn)
                loud = pool.submit(send, address, steady, options.step_seconds, turn).result()
                flooded = flooding.result()
                alone.append(quiet.latency_s(0.99))
                beside.append(loud.latency_s(0.99))
                failed += sum(one.offered - one.codes[OK] + one.late for one in (quiet, loud))
                refused += flooded.codes["8"]
                print(
                    f"turn {turn + 1}: steady p50 {1e3 * quiet.latency_s(0.5):.1f} p99 {1e3 * alone[-1]:.1f} ms alone, "
                    f"p50 {1e3 * loud.latency_s(0.5):.1f} p99 {1e3 * beside[-1]:.1f} ms beside {flooded.offered} calls "
                    f"of which {flooded.codes[OK]} were let in, refused in {1e3 * flooded.refusal_s(0.5):.1f} / "
                    f"{1e3 * flooded.refusal_s(0.99):.1f} ms (p50/p99)",
                    flush=True,
                )
    ratio = statistics.median(beside) / statistics.median(alone)
    print(
        f"p99 beside / alone: {ratio:.2f}; {failed} calls of the steady tenant failed, {refused} of the flood refused"
    )
    wrong = []
    if ratio > budgets.NEIGHBOUR:
        wrong.append(f"the steady tenant's p99 is {ratio:.2f} times of what it was alone, {budgets.NEIGHBOUR} allowed")
    if failed:
        wrong.append(f"{failed} calls of the steady tenant failed")
    if not refused:
        wrong.append("no call of the flood was refused: the load is too little to say anything")
    for fault in wrong:
        print(f"FAILED {fault}")
    return 1 if wrong else 0
