"""`python -m loadtests.soak`: a gateway of its own, everything that can happen to it for a given time, and a report.

Exit 0: every call ended as it has to, the gateway stopped cleanly, and nothing that a process holds grows. What the run
was too short to tell is said, and is no failure.
"""

import argparse
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom

import grpc

from loadtests.bench.servers import HOST, free_port, gateway_command, running
from loadtests.soak import mix, model, page
from loadtests.soak.growth import Verdict
from loadtests.soak.holdings import Holdings

START_S = 120.0
SAMPLES = 400  # in the whole run, one a second at most


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", default="", help="Of what comes when; drawn and printed if there is none.")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--transport", choices=["ngh2", "grpcio"], default="ngh2")
    parser.add_argument("--report", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    seed = options.seed or str(SystemRandom().randrange(2**32))
    print(f"soak of {options.seconds:g} s on {options.transport}; to repeat it: --seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as work:
        return _soak(options, seed, Path(work))


def _soak(options: argparse.Namespace, seed: str, work: Path) -> int:
    model.write(work / "models")
    grpc_port, metrics_port = free_port(), free_port()
    server = f"{HOST}:{grpc_port}"
    command = [
        *(*gateway_command(), "serve", "--model-repository", str(work / "models"), "--data-dir", str(work / "data")),
        *("--workers", str(options.workers), "--transport", options.transport),
        *(
            "--grpc-port",
            str(grpc_port),
            "--metrics-port",
            str(metrics_port),
            "--http-port",
            "-1",
            "--max-connections-per-address",
            "0",
        ),
    ]
    calls = mix.Calls()
    holdings = Holdings(work / "data", f"http://{HOST}:{metrics_port}/metrics", lambda: calls.total)
    troublemaker = mix.Troublemaker(server, f"{seed} trouble", holdings)
    callers = [mix.Caller(server, f"{seed} {number}", calls) for number in range(options.callers)]
    log = work / "output.txt"
    with running(command, log) as process:
        mix.wait_until(lambda: holdings.phase == "SERVING" or process.poll() is not None, START_S, "the start")
        with grpc.insecure_channel(server, options=mix.channel_options()) as channel:
            mix.flip(channel, next(iter(model.FACTORS)))
        began_s = time.monotonic()
        _together(options.seconds, [*(caller.run for caller in callers), troublemaker.run], holdings)
        seconds = time.monotonic() - began_s
        # What was killed last is on its way up; a stop is a clean one then as well.
        process.terminate()
        code = process.wait(START_S)
    lives = sorted(holdings.lives.values(), key=lambda life: (life.role, life.slot, life.pid))
    made = page.fits(lives)
    wrong = [*calls.wrong, *troublemaker.wrong]
    if code:
        wrong.append(f"the gateway ended with {code}: {log.read_text(errors='replace')[-2000:]}")
    if "Traceback" in (text := log.read_text(errors="replace")):
        wrong.append(f"a traceback in the log: {text[text.index('Traceback') :][:6000]}")
    facts = {
        "seed": seed,
        "transport": options.transport,
        "seconds": round(seconds),
        "calls": calls.total,
        **{f"calls {kind} {ended}": count for (kind, ended), count in sorted(calls.ended.items())},
        **{f"trouble {kind}": count for kind, count in sorted(troublemaker.made.items())},
        "wrong": len(wrong),
    }
    page.write(options.report, facts, lives, made)
    sys.stdout.write((options.report / "soak.txt").read_text())
    for line in wrong[:20]:
        print(f"FAILED {line}")
    grows = [fit for fit in made if fit.verdict is Verdict.GROWS]
    for fit in grows:
        print(f"FAILED {fit.line()}")
    print(f"report: {options.report / 'soak.html'}")
    return 1 if wrong or grows else 0


def _together(seconds: float, parts: list[mix.Runner], holdings: Holdings) -> None:
    """Runs all of it in threads for so long."""
    over = threading.Event()
    every_s = max(1.0, seconds / SAMPLES)
    with ExitStack() as stack:
        threads = [threading.Thread(target=part, args=(over,)) for part in parts]
        threads.append(threading.Thread(target=holdings.watch, args=(every_s, over)))
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)  # before the first join
        over.wait(seconds)


if __name__ == "__main__":
    sys.exit(main())
