"""What the runs of a worker share, with the files by which the supervisor learns what ran when the worker dies."""

import faulthandler
import logging

from gateway.runtime.config import Config
from gateway.runtime.post_mortem import fault_path
from gateway.serving.refusals import Refusals
from gateway.serving.response_cache import ResponseCache
from gateway.serving.run_page import RunPage, page_path
from gateway.serving.shared_run_state import SharedRunState

_log = logging.getLogger(__name__)


def make_run_state(config: Config, boot: str) -> SharedRunState:
    """Returns the page that shows what runs, what may not run, and the kept answers where the configuration wants any.

    Order: once in a process, whose stacks go to the file of its `boot` from then on if it crashes.
    """
    try:
        page = RunPage(page_path(config.run_dir, boot))
        faulthandler.enable(fault_path(config.run_dir, boot).open("wb"))  # which keeps the file open
    except OSError as error:
        _log.warning("what this worker runs is not known if it dies: %s has no room for it: %s", config.run_dir, error)
        page = RunPage()
        faulthandler.enable()
    refusals = Refusals(config.run_dir)
    if refusals.lives is not None and not refusals.lives.claim(boot):
        _log.warning("the other workers will learn of this one's death from the supervisor alone")
    kept_bytes = config.models.response_cache_bytes
    return SharedRunState(page, refusals, ResponseCache(kept_bytes) if kept_bytes else None)
