"""The table of schemes, and what other packages add to it."""

from pathlib import Path

import pytest

from loaders.errors import SourceNotFound, SourceUnreadable, UnsupportedUri
from loaders.schemes import LoaderSettings, canonical, missing, open_loader
from loaders.store import ContentStore

# A package of somebody else: a scheme whose URIs name directories below one of this machine.
PACKAGE = """
from loaders.filesystem import FilesystemLoader
from loaders.schemes import Scheme

def path(uri):
    return "/" + uri.partition("://")[2].strip("/")

shelf = Scheme(
    "shelf://directory",
    lambda uri: f"shelf:/{path(uri)}",
    lambda uri: "",
    lambda settings: FilesystemLoader(path(settings.uri), settings.store),
)


class Breaking(FilesystemLoader):
    def models(self):
        raise OSError("the library of another package: no route to host")


breaking = Scheme("breaking://", lambda uri: uri, lambda uri: "", lambda settings: Breaking("/", settings.store))
nothing = "no scheme"
"""
POINTS = """
[gateway.loaders]
shelf = shelves:shelf
breaking = shelves:breaking
empty = shelves:nothing
broken = absent_package:scheme
s3 = shelves:shelf
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the package as pip does: a module, and its metadata beside it."""
    place = tmp_path / "site"
    metadata = place / "shelves-1.0.dist-info"
    metadata.mkdir(parents=True)
    (place / "shelves.py").write_text(PACKAGE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shelves\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(place)


@pytest.mark.usefixtures("installed")
def test_a_package_adds_a_scheme(tmp_path: Path) -> None:
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    (tmp_path / "models" / "m" / "1" / "model.onnx").write_bytes(b"model")
    uri = canonical(f"shelf:/{tmp_path}/models/")
    assert uri == f"shelf:/{tmp_path}/models"
    loader = open_loader(LoaderSettings(uri, ContentStore(tmp_path / "store")))
    assert loader.fetch("m", "1").model_file().read_bytes() == b"model"


@pytest.mark.usefixtures("installed")
def test_what_a_package_cannot_add_is_named() -> None:
    with pytest.raises(UnsupportedUri, match=r"only for .*s3://.*, breaking://, broken://, empty://, shelf://; mount"):
        canonical("other://x")
    with pytest.raises(UnsupportedUri, match=r"'absent_package:scheme', cannot be imported"):
        canonical("broken://x")
    with pytest.raises(UnsupportedUri, match=r"'shelves:nothing', is no loaders\.schemes\.Scheme"):
        canonical("empty://x")
    with pytest.raises(UnsupportedUri, match="a bucket has"):  # a scheme of the table is not taken over
        canonical("s3://A_b")


@pytest.mark.usefixtures("installed")
def test_what_the_loader_of_a_package_raises_takes_no_other_repository_away(tmp_path: Path) -> None:
    """It ended every worker, and each of their successors."""
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    uri = f"breaking://x,{tmp_path / 'models'}"
    loader = open_loader(LoaderSettings(uri, ContentStore(tmp_path / "store")))
    for _ in range(2):
        with loader.one_look():
            listing = loader.models()
    assert listing.names == ("m",)
    assert "the loader of breaking:// URIs failed: OSError, see the log" in "".join(listing.unreadable.values())


def test_the_repository_that_is_missing_is_named(tmp_path: Path) -> None:
    assert missing(str(tmp_path)) == ""
    assert missing(f"{tmp_path},{tmp_path / 'absent'}").startswith(f"'{tmp_path / 'absent'}' is not a directory")


def test_an_object_store_without_its_account_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    told = missing("az://models/prod")
    assert "Account must be specified; it is written az://container/prefix?account=NAME" in told
    assert missing("az://models/prod?account=name") == ""


@pytest.mark.parametrize(
    ("profile", "told"),
    [("keys", ""), ("absent", "(absent) could not be found"), ("wrong", "'n/a' doesn't match a supported format")],
)
def test_a_start_is_refused_for_what_does_not_pass_and_not_for_keys_that_are_not_there_yet(
    profile: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_PROFILE", profile)
    (tmp_path / "config").write_text("[profile keys]\ncredential_process = false\n[profile wrong]\nregion = n/a\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    uri = "s3://models/prod"
    assert (told in missing(uri)) if told else missing(uri) == ""
    with pytest.raises(UnsupportedUri if told else SourceUnreadable, match="client cannot be made"):
        open_loader(LoaderSettings(uri, ContentStore(tmp_path / "store")))


def test_what_no_readable_repository_has_is_unknown_and_not_absent(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    uri = f"{tmp_path / 'a'},s3://abc?endpoint=http%3A%2F%2F127.0.0.1%3A1"
    loader = open_loader(LoaderSettings(uri, ContentStore(tmp_path / "store")))
    assert loader.models().unreadable.keys() == {"s3://abc?endpoint=http%3A%2F%2F127.0.0.1%3A1"}
    with pytest.raises(SourceUnreadable):
        loader.versions("m")
    (tmp_path / "a" / "m" / "1").mkdir(parents=True)
    assert loader.versions("m").names == ("1",)
    (tmp_path / "b").mkdir()
    both = open_loader(LoaderSettings(f"{tmp_path / 'a'},{tmp_path / 'b'}", ContentStore(tmp_path / "store")))
    with pytest.raises(SourceNotFound):
        both.versions("n")
