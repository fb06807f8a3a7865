"""docs/load-tests.md: its commands, in their order."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "load-tests.md").read_text()
BLOCKS = [part for part in re.split(r"^```", PAGE, flags=re.M)[1::2] if part.startswith("\n")]
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.splitlines() if line]
JOBS = [words[3:] for words in COMMANDS if words[:3] == ["python", "-m", "loadtests"]]
LOCUST = [words for words in COMMANDS if words[0] == "locust"]
