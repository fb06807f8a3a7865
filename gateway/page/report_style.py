"""The style that the pages of reports share: each of them is one file that needs nothing else."""

from importlib.resources import files
from typing import Final

from markupsafe import Markup

_FILE: Final = files("gateway.page").joinpath("templates", "report.css")


def report_style() -> Markup:
    """Returns the rules, to stand behind the page's own in its `style` element."""
    return Markup(_FILE.read_text(encoding="utf-8"))
