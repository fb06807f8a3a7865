"""The files beside a routed model's versions, kept in the content store.

A version that a route names is loaded from its copy when its directory has vanished. It must then be served as before,
so configuration, labels and warm-up data are kept as well.
"""

from collections.abc import Iterator
from pathlib import Path

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import EMPTY, MAX_BYTES, ConfigSource, parse_text
from gateway.serving.repository import CONFIG_FILENAME, MAX_SIDE_FILE_BYTES, ModelFolder
from loaders.errors import SourceNotFound, SourceTooLarge, SourceUnreadable
from loaders.loader import FileEntry, LocalVersion
from loaders.manifest import check_part
from loaders.store import ContentStore, hashed


def keep_files(store: ContentStore, folder: ModelFolder) -> str:
    """Returns the digest of a copy of the files that the model's configuration consists of and names.

    Raises: LoaderError, if they cannot be read or written.
    """

    def fill(staging: Path) -> tuple[FileEntry, ...]:
        return tuple(_written(staging, name, content) for name, content in _contents(folder))

    return store.put(fill).digest


def kept_folder(store: ContentStore, model: str, digest: str) -> ModelFolder | None:
    """Returns the model as its kept files describe it, without versions; None if the store lacks them or they are bad.

    Raises: StoreUnwritable.
    """
    copy = store.get(digest) if digest else None
    if copy is None:
        return None

    def read(name: str, limit: int) -> bytes:
        return _read(copy, name, limit)

    source, error = EMPTY, ""
    try:
        source = parse_text(read(CONFIG_FILENAME, MAX_BYTES))
    except SourceNotFound:
        pass
    except FailedPrecondition as refused:
        error = str(refused)
    return ModelFolder(model, read, source, f"kept {digest}", {}, error)


def _contents(folder: ModelFolder) -> Iterator[tuple[str, bytes]]:
    for name in (CONFIG_FILENAME, *sorted(named_files(folder.source))):
        try:
            yield name, folder.read_file(name, MAX_SIDE_FILE_BYTES)
        except SourceNotFound:
            continue  # the load said so


def named_files(source: ConfigSource) -> set[str]:
    """Returns the files beside the versions that the configuration names."""
    names = {output.label_filename for output in source.message.output}
    for warmup in source.message.model_warmup:
        names |= {f"warmup/{value.input_data_file}" for value in warmup.inputs.values() if value.input_data_file}
    return names - {""}


def _written(staging: Path, name: str, content: bytes) -> FileEntry:
    for part in name.split("/"):
        check_part(part)
    target = staging / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.write_bytes(content)
    return hashed(staging, name)


def _read(copy: LocalVersion, name: str, limit: int) -> bytes:
    entry = next((entry for entry in copy.files if entry.name == name), None)
    if entry is None:
        raise SourceNotFound(f"{name[:80]!a} is not there")
    if entry.size > limit:
        raise SourceTooLarge(f"{name[:80]!a} has {entry.size} bytes, the limit is {limit}")
    try:
        return (copy.path / name).read_bytes()
    except OSError as error:
        raise SourceUnreadable(f"{name[:80]!a} cannot be read: {error.strerror}") from error
