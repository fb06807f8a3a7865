"""Backup and restore as docs/deployment.md has them: copied while the gateway runs, wiped, put back."""

import json
import os
import shutil
from pathlib import Path

import grpc
import pytest

from tests.e2e.product import Product
from tests.records.traffic import lake_rows
from tests.upgrade.release import KEYS, call, write_models

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "examples" / "ab.yaml"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_what_was_backed_up_is_there_again(tmp_path: Path) -> None:
    product = Product(tmp_path / "gw", write_models(tmp_path / "models"))
    document = DOCUMENT.read_text().replace("model: digits", "model: ab")
    backup, documents, training = tmp_path / "backup", tmp_path / "routes", tmp_path / "training.csv"
    documents.mkdir()
    try:
        product.start()
        assert product.cli("routes", "apply", "-f", "-", "--reason", "first", text=document).exit_code == 0
        assert product.cli("weights", "ab", "a=10", "b=90", "--reason", "more").exit_code == 0
        with grpc.insecure_channel(product.server) as channel:
            for user in KEYS[:10]:
                call(channel, "ab", user)
        routes = product.cli("routes", "list", "-o", "json").stdout
        history = product.cli("routes", "history", "ab", "-o", "json").stdout
        assert product.cli("export", "-f", str(documents)).exit_code == 0
        training.write_text("x_0,x_1,x_2,x_3\n" + "".join(f"{row % 7},1,2,{row % 5}\n" for row in range(400)))
        words = ("profile", "build", "ab", "--version", "1", "--from", str(training), "--order", "none")
        built = product.cli(*words, "--data-dir", str(product.data))
        assert built.exit_code == 0, built.output
        # Whatever lies in the data directory is in the table, or named as what is made anew.
        page = (DOCS / "deployment.md").read_text().split("## Backup and restore")[1].split("## Upgrade")[0]
        kept = {name for name in os.listdir(product.data) if f"`<data-dir>/{name}`" in page}
        assert kept == {"valkey", "rules", "profiles", "state", "log"}
        assert {name for name in os.listdir(product.data) if f"`{name}`" not in page} == kept
        # The store, rules, profiles and state while it runs; the log once it stands still.
        for name in ("valkey", "rules", "profiles", "state"):
            shutil.copytree(product.data / name, backup / name)
        product.stop()
        shutil.copytree(product.data / "log", backup / "log")
        rows = {row["request_id"] for row in lake_rows(backup / "log" / "lake")}
        assert len(rows) == 10

        shutil.rmtree(product.data)
        shutil.copytree(backup, product.data)
        product.start()
        assert json.loads(product.cli("routes", "list", "-o", "json").stdout) == json.loads(routes)
        restored = json.loads(product.cli("routes", "history", "ab", "-o", "json").stdout)
        assert [one["digest"] for one in restored] == [one["digest"] for one in json.loads(history)]
        assert product.cli("audit", "verify").exit_code == 0
        assert [path.name for path in (product.data / "profiles").rglob("*.json")] == ["1.json"]
        assert {row["request_id"] for row in lake_rows(product.data / "log" / "lake")} == rows
        product.stop()

        # Only the documents are left.
        shutil.rmtree(product.data)
        product.start()
        assert product.cli("import", "-f", str(documents), "--reason", "restored").exit_code == 0
        [held] = json.loads(product.cli("routes", "list", "-o", "json").stdout)["routes"]
        assert held["document"] == json.loads(routes)["routes"][0]["document"]
        product.stop()
    finally:
        product.kill()
