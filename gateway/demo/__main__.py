"""`python -m gateway.demo DIR [--samples DIR]`: makes the demo repository, or its missing parts."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from gateway.demo import breast_cancer, digits, flight_delay
from gateway.demo.publication import missing, publish, write_index
from gateway.demo.recipe import DemoUnavailable

RECIPES = (digits.RECIPE, breast_cancer.RECIPE, flight_delay.RECIPE)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 if the repository is complete, 1 if a package needed to make it is missing."""
    parser = argparse.ArgumentParser(prog="python -m gateway.demo", description="Trains the demo models.")
    parser.add_argument("repository", type=Path, help="model repository to make; what it has already stays")
    parser.add_argument("--samples", type=Path, help="also write held-out rows with their answers, one .npz per model")
    options = parser.parse_args(arguments)
    wanted = [recipe for recipe in RECIPES if missing(recipe, options.repository, options.samples)]
    try:
        if wanted and (find_spec("sklearn") is None or find_spec("skl2onnx") is None):
            raise DemoUnavailable("scikit-learn and skl2onnx are missing: pip install 'model-serving-gateway[demo]'")
        for recipe in wanted:
            for version, quality in publish(recipe, options.repository, options.samples).items():
                report = f"{recipe.model} {version}: accuracy {quality.accuracy:.3f}, AUC {quality.auc:.3f}"
                sys.stdout.write(f"{report} on {quality.rows} held-out rows\n")
                sys.stdout.flush()
    except DemoUnavailable as error:
        sys.stderr.write(f"demo models: {error}\n")
        return 1
    if wanted:
        write_index(RECIPES, options.repository)
    return 0


if __name__ == "__main__":
    sys.exit(main())
