"""`python -m tests.fuzz TARGET SECONDS`: any bytes to one target, until the time is over or a defect is found.

With atheris (extra `fuzz`) inputs are chosen by what they cover; without it they are mutations of the corpus. What is
found is written to the working directory; put it into tests/fuzz/corpus/TARGET, where the tests try it for ever.
"""

import importlib
import logging
import random
import sys
import tempfile
import time
from hashlib import sha1
from pathlib import Path

from tests.fuzz.seeds import CORPUS

_LONGEST_BYTES = 4096


def main(target: str, seconds: int) -> None:
    logging.disable(logging.CRITICAL)  # handlers of the tests fail on purpose
    try:
        import atheris
    except ImportError:
        _mutate(target, seconds)
        return
    with atheris.instrument_imports(include=["gateway", "tests.fuzz"]):
        for name in [name for name in sys.modules if name.startswith(("gateway", "tests."))]:
            if name != "tests.fuzz" and not name.startswith("gateway.pb"):
                del sys.modules[name]  # imported for the corpus, without instruments
        function = importlib.import_module("tests.fuzz.targets").TARGETS[target]
    with tempfile.TemporaryDirectory() as grown:
        limits = [f"-max_total_time={seconds}", f"-max_len={_LONGEST_BYTES}", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", grown, str(CORPUS / target)], function)
        atheris.Fuzz()


def _mutate(target: str, seconds: int) -> None:
    from tests.fuzz.targets import TARGETS

    function = TARGETS[target]
    corpus = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    draw = random.Random(int(time.time()))
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutation(draw, corpus)
        try:
            function(data)
        except BaseException:
            Path(f"crash-{sha1(data).hexdigest()}").write_bytes(data)
            raise
        count += 1
    print(f"{target}: {count} inputs in {seconds} s, without atheris")


def mutation(draw: random.Random, corpus: list[bytes]) -> bytes:
    """An input near one of the corpus: bytes changed, removed, repeated, or parts of another one put in."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.randint(1, 8)):
        start = draw.randint(0, len(data))
        end = min(len(data), start + draw.choice((0, 1, 1, 2, 4, 16, 100)))
        other = draw.choice(corpus)
        at = draw.randint(0, len(other))
        part = draw.choice(
            (
                draw.randbytes(draw.randint(0, 4)),
                draw.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff" * 9 + b"\x01")),
                other[at : at + draw.choice((1, 4, 30))],
                bytes(data[start:end]) * 2,
                b"",
            )
        )
        data[start:end] = part
    return bytes(data[:_LONGEST_BYTES])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
