"""Writes gateway/pb/ from protos/*.proto: messages, type stubs and grpc servicers.

The generated imports are rewritten so that messages live in gateway.pb.pool, and modules import each other by package.
"""

import re
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).parent
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"  # google/protobuf/*.proto
NAMES = ("inference", "control", "tensorflow", "tensorflow_serving", "feast", "orca_load_report", "orca_service")


def generate(out: Path) -> None:
    """Every generated module is in `out`, ready to be imported as gateway.pb.*."""
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{WELL_KNOWN}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
        ]
        + [str(PROTOS / f"{name}.proto") for name in NAMES]
    )
    if code:
        raise SystemExit(code)
    for name in NAMES:
        messages = out / f"{name}_pb2.py"
        text = messages.read_text()
        text = text.replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool",
            "from gateway.pb import pool as _descriptor_pool",
        )
        messages.write_text(_by_package(text))
        for path in (out / f"{name}_pb2.pyi", out / f"{name}_pb2_grpc.py"):
            path.write_text(_by_package(path.read_text()))


def _by_package(text: str) -> str:
    return re.sub(rf"^import ({'|'.join(NAMES)})_pb2 as", r"from gateway.pb import \1_pb2 as", text, flags=re.M)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent / "gateway" / "pb")
