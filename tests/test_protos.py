"""The committed messages and stubs are what protos/ makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.pb import (
    control_pb2,
    feast_pb2,
    inference_pb2,
    orca_load_report_pb2,
    orca_service_pb2,
    tensorflow_pb2,
    tensorflow_serving_pb2,
)

ROOT = Path(__file__).parents[1]


def test_the_generated_code_is_that_of_the_protocol_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "protos" / "generate.py"), str(tmp_path)], check=True, timeout=50)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(made) >= {"inference_pb2.py", "inference_pb2_grpc.py", "control_pb2.py", "control_pb2_grpc.py"}
    for name, text in made.items():
        assert text == (ROOT / "gateway" / "pb" / name).read_text(), f"{name} is stale: run `make protos`"


FILES = tuple(
    one.DESCRIPTOR
    for one in (
        inference_pb2,
        control_pb2,
        tensorflow_pb2,
        tensorflow_serving_pb2,
        feast_pb2,
        orca_load_report_pb2,
        orca_service_pb2,
    )
)


@pytest.mark.parametrize(
    ("option", "form"),
    [
        ("go_package", r"[a-z0-9]+(/[a-z0-9]+)+;[a-z0-9]+"),
        ("java_package", r"[a-z0-9]+(\.[a-z0-9]+)+"),
        ("csharp_namespace", r"[A-Z][A-Za-z0-9]*(\.[A-Z][A-Za-z0-9]*)+"),
    ],
)
def test_each_file_has_a_package_of_its_own_in_every_language(option: str, form: str) -> None:
    named = [getattr(file.GetOptions(), option) for file in FILES]
    assert len(set(named)) == len(FILES)
    assert all(re.fullmatch(form, name) for name in named)
