"""The committed messages and stubs are what protos/ makes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_generated_code_is_that_of_the_protocol_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "protos" / "generate.py"), str(tmp_path)], check=True, timeout=50)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(made) >= {"inference_pb2.py", "inference_pb2_grpc.py", "control_pb2.py", "control_pb2_grpc.py"}
    for name, text in made.items():
        assert text == (ROOT / "gateway" / "pb" / name).read_text(), f"{name} is stale: run `make protos`"
