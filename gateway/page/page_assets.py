"""The files of the page: its own script and style, and uPlot's, each with the digest that its address carries."""

import gzip
from hashlib import sha256
from importlib.resources import files
from typing import Final, NamedTuple

# uPlot 1.6.32, MIT (uplot.LICENSE beside it): uPlot.iife.min.js and uPlot.min.css of its npm package, unchanged.
VENDORED: Final = {
    "uplot.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
TYPES: Final = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}


class PageAsset(NamedTuple):
    """A file as it is sent. `compressed` is it by gzip."""

    content: bytes
    compressed: bytes
    content_type: str


def _read(name: str) -> PageAsset:
    content = files("gateway.page").joinpath("static", name).read_bytes()
    return PageAsset(content, gzip.compress(content, mtime=0), TYPES[name.rpartition(".")[2]])


ASSETS: Final = {name: _read(name) for name in ("page.js", "page.css", "uplot.js", "uplot.css")}
DIGESTS: Final = {name: sha256(asset.content).hexdigest()[:16] for name, asset in ASSETS.items()}
