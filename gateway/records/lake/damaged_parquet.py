"""Tells damaged Parquet files from a disk that refuses: pyarrow raises OSError for both."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


class DamagedParquet(Exception):
    """A file that is no Parquet file, or damaged inside: what is read of it cannot be trusted."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises: DamagedParquet (the file's fault), OSError (the disk's)."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DamagedParquet(f"{path.name}: {error}") from error
    except OSError as error:
        if error.errno is not None:  # the operating system's
            raise
        raise DamagedParquet(f"{path.name}: {error}") from error
