"""The state that the runs of all versions of a worker share."""

from gateway.serving.arm_tally import JudgedRoutes
from gateway.serving.inline_watch import InlineWatch
from gateway.serving.refusals import Refusals
from gateway.serving.request_ids import RequestIds
from gateway.serving.response_cache import ResponseCache
from gateway.serving.run_page import RunPage


class SharedRunState:
    """The page that shows what runs, what must not run, the watch over runs on the loop, ids, and what is judged.

    `cache` are the answers that are kept. `traced` says that some calls are sampled, and are to know the run that they
    were part of.
    """

    __slots__ = ("cache", "ids", "judged", "page", "refusals", "traced", "watch")

    def __init__(
        self, page: RunPage | None = None, refusals: Refusals | None = None, cache: ResponseCache | None = None
    ) -> None:
        """Without a page the runs are shown to nobody; without refusals everything may run; without a cache no answer
        is kept.
        """
        self.cache = cache
        self.page = page or RunPage()
        self.refusals = refusals or Refusals()
        self.watch = InlineWatch()
        self.ids = RequestIds()
        self.judged = JudgedRoutes()
        self.traced = False
