"""The process of a replay: a question on standard input, lines of JSON as answers; at the lowest priority."""

import asyncio
import os
import sys
from collections.abc import Callable
from typing import IO

import msgspec

from gateway.drift.report.analysis_extra import missing_analysis
from gateway.errors import GatewayError, InvalidArgument
from gateway.replay.replay_question import ReplayMessage, ReplayQuestion, RerunQuestion
from gateway.serving.probe_child import end_with_parent

_NICENESS = 19


def main() -> None:
    """Answers the question on standard input."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        end_with_parent()
        os.nice(_NICENESS)
        question = msgspec.json.decode(sys.stdin.buffer.readline(), type=ReplayQuestion | RerunQuestion)

        def tell(done: int, total: int) -> None:
            _say(answers, ReplayMessage(done=done, total=total))

        try:
            message = asyncio.run(_answer(question, tell))
        except GatewayError as error:
            message = ReplayMessage(error=str(error), is_usage=isinstance(error, InvalidArgument))
        except ModuleNotFoundError as error:  # an extra: the rest of the gateway does without it
            missing = missing_analysis(error, "a replay")
            if not missing:
                raise
            message = ReplayMessage(error=missing, is_usage=True)
        except (OSError, MemoryError) as error:
            message = ReplayMessage(error=f"the replay failed: {error}")
        _say(answers, message)


async def _answer(question: ReplayQuestion | RerunQuestion, tell: Callable[[int, int], None]) -> ReplayMessage:
    from gateway.replay.logged_rerun import rerun
    from gateway.replay.replay_run import replay

    if isinstance(question, RerunQuestion):
        return ReplayMessage(rerun=await rerun(question))
    return ReplayMessage(report=await replay(question, tell))


def _say(answers: IO[bytes], message: ReplayMessage) -> None:
    answers.write(msgspec.json.encode(message) + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
