"""`python -m loadtests run | capacity | compare | check | list` for any server, and the gateway's own tests.

The first are in docs/load-tests.md; the others (`demo_scenarios`) are with the demo models, and need what trains them.
"""

import sys

from loadtests.job.command import COMMANDS
from loadtests.job.command import main as run_command


def main() -> int:
    if sys.argv[1:2] in ([], ["-h"], ["--help"]) or sys.argv[1] in COMMANDS:
        return run_command(sys.argv[1:])
    from loadtests import demo_scenarios

    return demo_scenarios.main()


if __name__ == "__main__":
    sys.exit(main())
