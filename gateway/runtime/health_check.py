"""Asks the gateway of this host whether it is ready: the image's check, `python -m gateway.runtime.health_check`.

The address comes from what the running gateway wrote about itself, so it is right whatever configured the ports. It
runs every few seconds: only the standard library, and little of it.
"""

import http.client
import json
import os
import sys
from pathlib import Path
from typing import Final

PATHS: Final = {"ready": "/readyz", "live": "/healthz"}
_STATE: Final = Path("run", "state.json")
_EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LIMIT_S: Final = 2.0


def trouble(data_dir: Path, path: str) -> str:
    """Returns why the gateway on this data directory is not what `path` asks for, "" if it is."""
    try:
        state = json.loads((data_dir / _STATE).read_bytes())
        host, port = str(state.get("metrics_address", state["host"])), int(state["ports"]["metrics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"nothing is known of a gateway in {data_dir}: {error}"
    connection = http.client.HTTPConnection(_EVERY_ADDRESS.get(host, host), port, timeout=_LIMIT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer at {host}:{port}: {error}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{path} at {host}:{port} says {status}"


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 if all is well, 1 if not, 2 for wrong arguments; one is allowed: ready or live."""
    question = arguments[0] if arguments else "ready"
    if question not in PATHS or len(arguments) > 1:
        sys.stderr.write(f"one of {', '.join(PATHS)} is allowed; the data directory is GATEWAY_DATA_DIR\n")
        return 2
    wrong = trouble(Path(os.environ.get("GATEWAY_DATA_DIR", "data")), PATHS[question])
    if wrong:
        sys.stderr.write(f"gateway: {wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
