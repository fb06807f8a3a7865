"""A real gateway on a real MLflow server: a move of an alias is a revision, and a rollback stands until the next."""

import json
from pathlib import Path

import pytest

from tests import models
from tests.e2e.product import Product, until
from tests.loaders.mlflow_server import needs_mlflow, real_mlflow

LIMIT_S = 60.0
REGISTER = """
client.create_registered_model("affine")
for number in (1, 2, 3):
    run = client.create_run(client.create_experiment(f"e{number}"))
    client.log_artifacts(run.info.run_id, f"{sys.argv[2]}/{number}", "model")
    client.create_model_version("affine", f"{run.info.artifact_uri}/model", run.info.run_id)
client.set_registered_model_alias("affine", "champion", "1")
"""
MOVE = 'client.set_registered_model_alias("affine", "champion", sys.argv[2])'


class Registered(Product):
    """A gateway whose repository is a registry."""

    registry = ""

    def serve_arguments(self) -> list[str]:
        words = super().serve_arguments()
        words[words.index("--model-repository") + 1] = self.registry
        return words


def history(product: Product) -> list[tuple[str, str, str]]:
    listed = json.loads(product.cli("routes", "history", "affine", "-o", "json").stdout)
    return [(one["actor"], one["operation"], one["reason"]) for one in reversed(listed)]


@needs_mlflow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_move_of_an_alias_is_a_revision_of_the_route(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        models.write_version(tmp_path / "made", "affine", str(number), models.affine(float(number)))
    with real_mlflow(tmp_path) as mlflow:
        mlflow.client(REGISTER, str(tmp_path / "made" / "affine"))
        product = Registered(tmp_path / "gateway", tmp_path, "--poll-seconds", "0.5")
        product.registry = f"mlflow+{mlflow.address}"
        product.start()
        try:
            (tmp_path / "route.yaml").write_text(
                "apiVersion: gateway/v1\nkind: Route\nmetadata: {model: affine}\nspec:\n"
                "  labels: {champion: {version: 1, alias: champion}}\n"
                "  arms: {main: {label: champion}}\n  strategy: {pinned: {arm: main}}\n"
            )
            done = product.cli("routes", "apply", "-f", str(tmp_path / "route.yaml"))
            assert done.exit_code == 0, done.output
            mlflow.client(MOVE, "2")
            until(lambda: len(history(product)) == 2, LIMIT_S, "the move")
            assert history(product)[1] == (
                "aliases",
                "label",
                "alias 'champion' has moved from version '1' to '2'",
            )
            done = product.cli("rollback", "affine", "--reason", "worse")
            assert done.exit_code == 0, done.output
            mlflow.client(MOVE, "3")
            until(lambda: len(history(product)) == 4, LIMIT_S, "the next move")
            assert [operation for _, operation, _ in history(product)] == ["apply", "label", "rollback", "label"]
            assert history(product)[3][2] == "alias 'champion' has moved from version '1' to '3'"
            assert product.cli("diff", "-f", str(tmp_path / "route.yaml")).exit_code == 0
            product.stop()
        finally:
            product.kill()
