"""The extra that reports need, and what is said where it is not installed."""

from typing import Final

ANALYSIS: Final = ("duckdb", "scipy")


def missing_analysis(error: ModuleNotFoundError, who: str) -> str:
    """Returns what `who` needs and how to install it; "" where the missing module is none of the extra's."""
    name = (error.name or "").partition(".")[0]
    return f"{who} needs {name}: pip install 'model-serving-gateway[analysis]' installs it" if name in ANALYSIS else ""
