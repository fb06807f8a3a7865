"""`python -m loadtests flips | sticky | canary | movement | overload | tenants`: models whose answers are known.

The numbers of budgets.py are what must hold. Exit 0: they held.
"""

import argparse
import os
import sys
from pathlib import Path

from gateway.demo.__main__ import main as make_demo
from loadtests import budgets, movement, overload, tenants
from loadtests.job.command import DEMO
from loadtests.options import CACHE, add_options

USERS = {"flips": ("FlipCaller", "Flipper"), "sticky": ("StickyCaller",), "canary": ("CanaryCaller",)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description="Load on a running gateway, all checked.")
    parser.add_argument("scenario", choices=DEMO)
    parser.add_argument("--server", default="127.0.0.1:8001", help="host:port of the gateway's gRPC port.")
    parser.add_argument("--seconds", type=int, default=budgets.FLIPS_SECONDS)
    parser.add_argument("--users", type=int, default=budgets.USERS)
    parser.add_argument("--keys", type=int, default=budgets.MOVING_KEYS, help="Of the scenario movement.")
    parser.add_argument("--step-seconds", type=float, default=4.0, help="Of each step of overload and tenants.")
    parser.add_argument("--rounds", type=int, default=3, help="Of overload.")
    parser.add_argument("--messages", choices=["small", "large", "both"], default="both", help="Of overload.")
    parser.add_argument("--transport", choices=["ngh2", "grpcio"], default="ngh2", help="Of overload and tenants.")
    parser.add_argument(
        "--repository", type=Path, default=CACHE / "models", help="Demo repository, if samples are missing."
    )
    add_options(parser)
    parser.set_defaults(flips=budgets.FLIPS)
    options = parser.parse_args()
    if options.scenario == "overload":
        return overload.run(options)
    if options.scenario == "tenants":
        return tenants.run(options)
    if not (options.samples / f"{options.model}.npz").is_file() and make_demo(
        [str(options.repository), "--samples", str(options.samples)]
    ):
        return 1
    if options.scenario == "movement":
        return movement.run(options)
    command = _command(options)
    sys.stdout.flush()
    os.execv(command[0], command)


def _command(options: argparse.Namespace) -> list[str]:
    users = USERS[options.scenario]
    count = options.users + len(users) - 1
    # Faster than asked: a slow flip must not cost the gate, and locust's run ends up to two seconds early.
    every_s = 0.7 * options.seconds / options.flips if options.flips else options.flip_every
    given = {
        "locustfile": Path(__file__).with_name("locustfile.py"),
        "host": options.server,
        "users": count,
        "spawn-rate": count,
        "run-time": f"{options.seconds}s",
        "model": options.model,
        "samples": options.samples,
        "calls-per-second": options.calls_per_second,
        "flips": options.flips if options.scenario == "flips" else 0,
        "flip-every": every_s,
    }
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "locust", "--headless", "--only-summary", *words, *users]
