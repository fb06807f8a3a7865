"""Bad model files by their number in the table of bad inputs: each is FAILED with its reason, all else serves.

One catalog loads them all at once, and takes only versions that are signed. Version 1 of each model is good, version 2
is the bad one. What verification refuses beyond these is in `bad_models.py`.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.serving.version import VersionState
from loaders.model_signature import TrustedKeys
from tests import models
from tests.loaders import signing
from tests.serving.bad_models import BAD
from tests.serving.catalogs import answer, opened

KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = models.affine(2.0)
CANARY = b"canary: outside the repository"
Make = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: its number, what makes the version's directory (empty before), what the reason must say."""

    number: int
    make: Make
    reason: str
    signed: bool = True


def written(name: str) -> Make:
    """Writes a model of the table of what verification refuses."""

    def make(directory: Path) -> None:
        bad = BAD[name]
        for path, content in {"model.onnx": bad.content, **(bad.files or {})}.items():
            (directory / path).write_bytes(content)

    return make


def row(number: int, name: str) -> Row:
    return Row(number, written(name), BAD[name].reason)


def good(directory: Path) -> None:
    (directory / "model.onnx").write_bytes(GOOD)


def linked(directory: Path, target: str, name: str = "model.onnx") -> None:
    (directory / name).symlink_to(target)


def external_behind(name: str) -> Make:
    """Refers to external data that lies behind a symbolic link out of the repository."""

    def make(directory: Path) -> None:
        content = models.with_external_data(np.zeros(4, np.float32), location=name, offset="0", length="16")
        (directory / "model.onnx").write_bytes(content)
        linked(directory, "../../../outside" + ("/w.bin" if name == "w.bin" else ""), name.split("/")[0])

    return make


def directory_instead(directory: Path) -> None:
    (directory / "model.onnx").mkdir()
    (directory / "model.onnx" / "x").write_bytes(b"")


def huge_at_run_time(directory: Path) -> None:
    (directory / "model.onnx").write_bytes(models.huge_constant())


def changed_after_the_manifest(directory: Path) -> None:
    good(directory)
    (directory / "manifest.sha256").write_text(f"{'0' * 64}  model.onnx\n")


def changed_after_signing(directory: Path) -> None:
    good(directory)
    signing.sign(directory, KEY)
    (directory / "model.onnx").write_bytes(models.affine(7.0))


def signed_by_another(directory: Path) -> None:
    good(directory)
    signing.sign(directory, ec.generate_private_key(ec.SECP256R1()))


ROWS: Mapping[str, Row] = {
    "70-empty": row(70, "empty"),
    "70-truncated": row(70, "truncated"),
    "70-random": row(70, "random"),
    "70-web-page": row(70, "web page"),
    "70-directory": Row(70, directory_instead, "is a directory without a file"),
    "70-fifo": Row(70, lambda path: os.mkfifo(path / "model.onnx"), "is a FIFO"),
    "70-zero": Row(70, lambda path: linked(path, "/dev/zero"), "leads out of the model repository"),
    "71-above": row(71, "external above"),
    "71-absolute": row(71, "external absolute"),
    "71-symlink": Row(71, external_behind("w.bin"), "leads out of the model repository"),
    "71-symlinked-parent": Row(71, external_behind("up/w.bin"), "leads out of the model repository"),
    "71-hard-link": Row(71, lambda path: os.link(path / "../../../outside/w.bin", path / "model.onnx"), "2 hard links"),
    "73-truncated-data": row(73, "external cut"),
    "73-negative-offset": row(73, "external offset negative"),
    "74-unknown-key": row(74, "external unknown key"),
    "75-negative-dimension": row(75, "negative dimension"),
    "75-overflow": row(75, "product overflow"),
    "76-nan": row(76, "NaN"),
    "77-unknown-operator": row(77, "unknown operator"),
    "77-future-operator-set": row(77, "future operator set"),
    "77-custom-operator": row(77, "custom operator"),
    "78-huge-at-run-time": Row(78, huge_at_run_time, "needs more memory than the limit"),
    "80-other-than-its-manifest": Row(80, changed_after_the_manifest, "has SHA-256 .*, but manifest"),
    "80-other-than-signed": Row(80, changed_after_signing, "is not the file that was signed", signed=False),
    "81-unsigned": Row(81, good, "not signed, and a signature is required", signed=False),
    "81-another-key": Row(81, signed_by_another, "not made with any of the trusted keys", signed=False),
    "81-control-characters": row(81, "escape in node name"),
    "81-long-text": row(81, "10 MB text"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    state: VersionState
    reason: str
    answered_by: str
    answered: float


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    root = tmp_path_factory.mktemp("bad")
    repository = root / "models"
    (root / "outside").mkdir()
    (root / "outside" / "w.bin").write_bytes(CANARY)
    first = root / "signed"
    first.mkdir()
    good(first)
    signing.sign(first, KEY)
    for name, row in ROWS.items():
        shutil.copytree(first, repository / name / "1")
        second = repository / name / "2"
        second.mkdir()
        row.make(second)
        if row.signed:
            signing.sign(second, KEY)
    (root / "keys.pem").write_bytes(signing.public_pem(KEY))

    async def outcomes() -> dict[str, Outcome]:
        async with opened(root, trusted_keys=TrustedKeys(root / "keys.pem")) as live:
            await live.catalog.poll()
            states = live.states()
            return {
                name: Outcome(
                    states[f"{name}/2"],
                    live.reason(name, "2"),
                    live.catalog.newest(name).name,
                    answer(live.catalog.newest(name)),
                )
                for name in ROWS
            }

    made = asyncio.run(outcomes())
    assert not [path for path in (root / "data").rglob("*") if path.is_file() and CANARY in path.read_bytes()]
    return made


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_file_is_failed_with_its_reason_and_the_version_before_it_serves(
    name: str, outcomes: dict[str, Outcome]
) -> None:
    outcome = outcomes[name]
    assert outcome.state is VersionState.FAILED
    assert re.search(ROWS[name].reason, outcome.reason), outcome.reason
    assert outcome.reason.isprintable()
    assert "/tmp" not in outcome.reason
    assert (outcome.answered_by, outcome.answered) == ("1", 2.0)


def test_the_table_has_every_row_of_model_files() -> None:
    assert sorted({row.number for row in ROWS.values()}) == [70, 71, 73, 74, 75, 76, 77, 78, 80, 81]
