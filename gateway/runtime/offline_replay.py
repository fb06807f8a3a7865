"""Replays of logged requests for rollouts that begin with one: processes of the control process, of low priority."""

import asyncio
import logging
import sys
from time import time_ns
from typing import Final

import msgspec

from gateway.replay.replay_question import REPLAY_PROCESS, ReplayMessage, ReplayQuestion
from gateway.replay.replay_report import replay_verdict
from gateway.rollout.offline_verdict import OfflineVerdict
from gateway.rollout.rollout_record import RolloutRecord
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.offline_check import OfflineCheck
from gateway.runtime.config import Config

LIMIT_S: Final = 600.0
_AFTER_S: Final = 120.0  # for opening the versions, and the report
_LINE_BYTES: Final = 16 << 20
_log = logging.getLogger(__name__)


class OfflineReplays:
    """Runs one replay for each rollout that asks, over the log of this host. `host` names it in the verdicts."""

    def __init__(self, config: Config, host: str) -> None:
        self._data_dir = str(config.process.data_dir.absolute())
        self._repository = config.models.repository
        self._links_to = tuple(path for path in config.models.allow_links_to.split(",") if path)
        self._host = host
        self._running: dict[str, tuple[str, asyncio.Task[OfflineVerdict]]] = {}  # by model, with the rollout

    def ask(self, record: RolloutRecord, check: OfflineCheck) -> OfflineVerdict | None:
        """Returns the verdict, None while it is being found out; the first call begins."""
        known = self._running.get(record.model)
        if known is not None and known[0] != record.id:  # of a rollout that is over
            known[1].cancel()
            known = None
        if known is None:
            known = self._running[record.model] = record.id, asyncio.create_task(self._run(record, check))
        task = known[1]
        if not task.done():
            return None
        del self._running[record.model]
        return task.result()

    async def aclose(self) -> None:
        """Ends what runs."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, record: RolloutRecord, check: OfflineCheck) -> OfflineVerdict:
        stable, canary = record.versions
        now_us = time_ns() // 1000
        limit = check.fail_above / BUCKETS
        question = ReplayQuestion(
            data_dir=self._data_dir,
            model=record.model,
            version=canary,
            start_us=max(0, now_us - check.window_ms * 1000),
            end_us=now_us,
            now_us=now_us,
            against=stable,
            repository=self._repository,
            links_to=self._links_to,
            rows=check.rows,
            shown=0,
            limit_s=LIMIT_S,
        )
        message = await self._asked(question)
        if message.report is None:
            reason = f"nothing was replayed: {message.error or 'the process ended without a report'}"
            return OfflineVerdict("nodata", reason, limit=limit, host=self._host)
        told = replay_verdict(message.report, limit)
        return OfflineVerdict(
            *(told.verdict, told.reason, told.rows, told.changed, told.share, told.low, told.high),
            *(limit, told.missing, self._host),
        )

    async def _asked(self, question: ReplayQuestion) -> ReplayMessage:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *REPLAY_PROCESS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_LINE_BYTES,
            )
        except OSError as error:
            return ReplayMessage(error=f"no process could be started: {error.strerror}")
        last = ReplayMessage()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_S + _AFTER_S):
                process.stdin.write(msgspec.json.encode(question) + b"\n")
                await process.stdin.drain()
                async for line in process.stdout:
                    last = msgspec.json.decode(line, type=ReplayMessage)
        except (ConnectionError, ValueError, msgspec.MsgspecError) as error:
            _log.warning("the replay for model %s told nothing that can be read: %s", question.model, error)
        except TimeoutError:
            last = ReplayMessage(error=f"it took longer than {LIMIT_S + _AFTER_S:g} s")
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        return last
