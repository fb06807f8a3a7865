"""The verdict on a whole run: locust's exit code, and one line that a program can read."""

import json
import sys
from typing import Any

from loadtests import budgets, scenario

EXIT_FAILED = 1


def conclude(environment: Any) -> None:
    """Sets the exit code: 0 if every budget held."""
    total = environment.stats.total
    problems = []
    if not total.num_requests:
        problems.append("no call was made")
    if total.fail_ratio > budgets.FAILURE_RATIO:
        problems.append(
            f"{total.num_failures} of {total.num_requests} calls failed, allowed is {budgets.FAILURE_RATIO:g}"
        )
    flips = 0
    if scenario.started():
        run = scenario.running()
        flips = run.flips.done if run.flips is not None else 0
        problems += run.findings(environment.parsed_options.flips)
        sys.stdout.write(run.measured() + "\n")
    else:
        problems.append("the scenario did not start")
    environment.process_exit_code = EXIT_FAILED if problems else 0
    sys.stdout.write("".join(f"FAILED: {text}\n" for text in problems) or "every budget held\n")
    result = {"requests": total.num_requests, "failures": total.num_failures, "flips": flips, "found": problems}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
