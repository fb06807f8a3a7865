"""One model file of this machine: version 1 of a model that has its name.

    clf.onnx                        the model clf; model.onnx is the model with the name of its directory
    clf.onnx.data, clf.onnx_data    its external data, copied with it

Nothing else beside it is read.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from loaders import tree, uri
from loaders.boundary import Location
from loaders.directory_layout import MODEL_FILE, is_number
from loaders.errors import SourceNotFound, SourceUnreadable
from loaders.filesystem import FilesystemLoader, one_model
from loaders.loader import Listing
from loaders.store import ContentStore
from loaders.tree import SourceFile, TreeLimits

_SUFFIX: Final = ".onnx"
_VERSION: Final = "1"
_DATA: Final = (".data", "_data")  # as the exporters of PyTorch and Optimum name it
_ROOT: Final = Location(0, ())


class PlainFileLoader(FilesystemLoader):
    """The loader of a model file: a path or a file:// URI that ends in .onnx and is no directory."""

    def __init__(
        self,
        repository: str | Path,
        store: ContentStore,
        *,
        links_to: Iterable[str | Path] = (),
        limits: TreeLimits | None = None,
    ) -> None:
        path = Path(uri.local_path(str(repository)))
        super().__init__(path.parent, store, links_to=links_to, limits=limits)
        self._path = path
        self._model = model_name(path)

    def models(self) -> Listing:
        """Returns the one model. Raises: SourceNotFound, SourceUnreadable."""
        self._walked(_ROOT)
        return one_model(self._model)

    def origin(self, model: str) -> str:
        """Returns the absolute path of the file."""
        return str(self._path)

    def versions(self, model: str) -> Listing:
        """Returns the one version. Raises: as `Loader`."""
        self._walked(self._directory(model))
        return Listing((_VERSION,), {})

    def stamp(self, model: str) -> str:
        """Returns what never changes: nothing lies beside the version. Raises: as `Loader`."""
        self._directory(model)
        return "none"

    def _directory(self, model: str, *below: str) -> Location:
        for name in (model, *below):
            uri.check_directory_name(name)
        if model != self._model or below not in ((), (_VERSION,)):
            raise SourceNotFound(f"{'/'.join((model, *below))!a} is not there")
        return _ROOT

    def _located(self, model: str, parts: Sequence[str]) -> Location:
        directory = self._directory(model)
        for file in self._walked(directory):
            if list(parts) == [_VERSION, self._copied_name(file.name)]:
                return self._boundary.resolve(directory, (file.name,))
        raise SourceNotFound(f"{'/'.join(parts)!a} is not there")

    def _walked(self, directory: Location) -> list[SourceFile]:
        """Returns the model and its external data. Raises: SourceNotFound, where there is no model."""
        model = self._path.name
        with self._boundary.opened(directory, "the model's directory", directory=True) as descriptor:
            try:
                names = os.listdir(descriptor)
            except OSError as error:
                raise SourceUnreadable(f"the model's directory cannot be listed: {error.strerror}") from error
        files = []
        data = [name for name in names if name != model and name.startswith(tuple(model + end for end in _DATA))]
        for name in (model, *sorted(data)):
            status = self._boundary.status(self._boundary.resolve(directory, (name,)), ascii(name))
            tree.check_kind(name, status, self._limits)
            files.append(SourceFile(name, status.st_size, tree.stamp_of(status)))
        return files

    def _stamps(self, directory: Location) -> object:
        return self._walked(directory)

    def _copied_name(self, name: str) -> str:
        return MODEL_FILE if name == self._path.name else name


def is_plain_file(repository: str) -> bool:
    """Whether the path or file:// URI means a model file. Raises: UnsupportedUri."""
    path = uri.local_path(repository)
    return path.endswith(_SUFFIX) and not os.path.isdir(path)


def model_name(path: Path) -> str:
    """Returns the name of the model in a file."""
    return path.parent.name if path.name == MODEL_FILE else path.stem


def missing_place(repository: str) -> str:
    """Returns what is wrong with the path of a repository before a start, "" if it can be one."""
    path = Path(uri.local_path(repository))
    if path.is_file():
        if path.suffix != _SUFFIX:
            return f"is a file, and its name does not end in {_SUFFIX}: name a model file, or a directory"
        if path.name == MODEL_FILE and is_number(path.parent.name):
            return f"is version {path.parent.name} of a model: name the directory of its versions, {path.parent.parent}"
        return ""
    if is_plain_file(repository):
        return "is not there: copy the model file there, or name another one"
    if not path.is_dir():
        return "is not a directory: make it, mount its volume, or name another one"
    return ""
