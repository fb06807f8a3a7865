"""A real browser: Debian's chromium or the system's, driven by Playwright, with no network but this machine."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page in a context of its own, with everything that its console said and that it transferred."""

    def __init__(self, browser: Browser, *, dark: bool = False) -> None:
        self._context: BrowserContext = browser.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": 1280, "height": 900}
        )
        self.page: Page = self._context.new_page()
        self.errors: list[str] = []
        self.transferred = 0
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfinished", self._count)

    def _count(self, request: object) -> None:
        sizes = request.sizes()  # type: ignore[attr-defined]
        self.transferred += sizes["responseBodySize"] + sizes["responseHeadersSize"]

    def shoot(self, name: str) -> None:
        """Keeps a picture of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def close(self) -> None:
        self._context.close()
