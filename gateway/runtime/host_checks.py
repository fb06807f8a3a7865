"""What a gateway needs of its host, looked at before it starts: each check is a function that returns a finding.

`judge_*` decide by numbers alone; the others look, and change nothing that stays.
"""

import errno
import fcntl
import locale
import os
import resource
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Final

from gateway.access.json_web_token import parse_keys
from gateway.access.key_fetch import answer_at
from gateway.byte_size import rounded_bytes
from gateway.errors import GatewayError, InvalidArgument
from gateway.rpc.server_certificate import read
from gateway.runtime.build import is_compiled
from gateway.runtime.config import Config
from gateway.runtime.host_finding import HostFinding, fail, ok, unknown, warn
from gateway.runtime.instance import Ports
from gateway.runtime.platform_limits import platform_limits
from loaders.errors import LoaderError
from loaders.schemes import LoaderSettings, open_loader
from loaders.store import ContentStore

_SPARE_FILES: Final = 512  # of a worker beside its connections: models, segments, sockets among processes
_DISK_FAIL_BYTES: Final = 1 << 30
_DISK_WARN_SHARE: Final = 0.1
_CERTIFICATE_WARN_S: Final = 14 * 86_400.0
_LOCALE: Final = "en_US.UTF-8"
_CLOCK_BEHIND_S: Final = 86_400.0
_SHOWN: Final = 5


def check_build() -> HostFinding:
    if is_compiled():
        return ok("compiled")
    return warn(
        "not compiled: a request takes half as much CPU again", "install a wheel, or first gcc and Python's headers"
    )


def check_platform(platform: str) -> HostFinding:
    missing = platform_limits(platform)
    if not missing:
        return ok(platform)
    shown = "; ".join(limit.feature for limit in missing[:_SHOWN])
    more = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return warn(
        f"{platform} lacks: {shown}{more}", "serve for others from Linux; docs/platforms.md says what holds instead"
    )


def check_ports(config: Config, running: str) -> HostFinding:
    wanted = {f"--{name}": port for name, port in config.ports.items() if port}
    shown = ", ".join(f"{name} {port}" for name, port in wanted.items()) or "any"
    if running:
        return ok(f"{shown}: a gateway runs here (process {running})")
    try:
        Ports(config.listen.host, config.ports, config.elsewhere).close()
    except GatewayError as error:
        return fail(
            str(error), "stop what listens there, or give other ports; those below 1024 need CAP_NET_BIND_SERVICE"
        )
    return ok(f"{shown}: free on {' and '.join(dict.fromkeys((config.listen.host, config.operators_host)))}")


def running_in(data_dir: Path) -> str:
    """Returns the process of the gateway that holds the data directory, "" if none does."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(descriptor)
    return ""


def check_data_dir(data_dir: Path, running: str) -> HostFinding:
    if running:
        return warn(f"{data_dir}: a gateway runs on it (process {running})", "a second one needs another --data-dir")
    try:
        return _look_at(data_dir)
    except PermissionError as error:
        return fail(
            f"the folder of {error.filename} cannot be entered by this user",
            f"chown it to the gateway's user (now uid {os.geteuid()}), or name another --data-dir",
        )


def _look_at(data_dir: Path) -> HostFinding:
    """Returns what a data directory is that nobody runs on. Raises: PermissionError naming what cannot be looked at."""
    if data_dir.is_symlink() and not data_dir.exists():
        return fail(f"{data_dir} is a link to {data_dir.readlink()}, which is not there", "make or mount that first")
    there = nearest(data_dir)
    if not there.is_dir():
        return fail(f"{there} is no directory", "name another --data-dir, or move it away")
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return fail(f"{there} is on a file system that is read-only", "mount it writable, or name another --data-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        return fail(
            f"{there} cannot be written by this user", f"chown it to the gateway's user (now uid {os.geteuid()})"
        )
    alien = [
        path
        for path in (data_dir, *sorted(data_dir.glob("*")))
        if path.exists() and path.lstat().st_uid != os.geteuid()
    ]
    if alien and os.geteuid():
        return fail(f"{alien[0]} belongs to another user", "run this and the gateway as its user, or chown -R it")
    if os.geteuid() == 0:
        return warn(f"{data_dir}, as root", "run the gateway as a user of its own (docs/security.md, Hardening)")
    return ok(f"{data_dir}{'' if data_dir.exists() else ', to be made'}")


def nearest(path: Path) -> Path:
    """Returns the path, or the folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_disk(data_dir: Path) -> HostFinding:
    try:
        status = os.statvfs(nearest(data_dir))
    except OSError as error:
        return unknown(f"{data_dir}: {error.strerror}", "look with df")
    total = status.f_blocks * status.f_frsize
    inodes = status.f_favail / status.f_files if status.f_files else 1.0
    return judge_disk(status.f_bavail * status.f_frsize, total, inodes)


def judge_disk(free: int, total: int, inodes: float) -> HostFinding:
    """`inodes` is the share of them that is free."""
    seen = f"{rounded_bytes(free)} of {rounded_bytes(total)} free, {inodes:.0%} of the inodes"
    remedy = "give --data-dir more room: the log is thinned out while its disk is nearly full, and then dropped"
    if free < _DISK_FAIL_BYTES or inodes < 0.01:
        return fail(seen, remedy)
    return warn(seen, remedy) if free < _DISK_WARN_SHARE * total or inodes < _DISK_WARN_SHARE else ok(seen)


def check_files(max_connections: int) -> HostFinding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_files(soft, hard, max_connections)


def judge_files(soft: int, hard: int, max_connections: int) -> HostFinding:
    needed = max_connections + _SPARE_FILES
    if hard == resource.RLIM_INFINITY:
        return ok("no limit")
    seen = f"{soft}, raised to {hard} at the start; --max-connections {max_connections} and the rest need {needed}"
    remedy = f"LimitNOFILE={needed} (systemd), --ulimit nofile={needed} (docker), or fewer connections"
    if hard < _SPARE_FILES:
        return fail(seen, remedy)
    return warn(seen, remedy) if hard < needed else ok(seen)


def check_repository(config: Config) -> HostFinding:
    """Lists the models as the gateway will."""
    models = config.models
    if reason := models.missing_repository():
        return fail(reason, "mount it, or name another --model-repository")
    links = [Path(path) for path in models.allow_links_to.split(",") if path]
    try:
        place = gettempdir()
    except FileNotFoundError as error:
        return fail(str(error.strerror), "a model is tried there: mount a tmpfs at /tmp, or set TMPDIR")
    with TemporaryDirectory(prefix="gateway-doctor-", dir=place) as folder:
        try:
            loader = open_loader(LoaderSettings(models.repository, ContentStore(Path(folder)), links))
            listing = loader.models()
        except LoaderError as error:
            return fail(f"{models.repository}: {error}", "rights, credentials and the network between (docs/models.md)")
    if listing.unreadable:
        name, why = next(iter(listing.unreadable.items()))
        return fail(f"{name}: {why}", "rights, credentials and the network between (docs/models.md)")
    meant = {name: why for name, why in listing.refused.items() if name not in listing.beside}
    if meant:
        name, why = next(iter(meant.items()))
        return warn(f"{len(listing.names)} models; {name!r} is none: {why}", "rename it or move it away")
    if not listing.names:
        return warn(f"{models.repository} has no models", "publish one as <model>/<version>/model.onnx")
    more = f" and {len(listing.names) - _SHOWN} more" if len(listing.names) > _SHOWN else ""
    return ok(f"{', '.join(listing.names[:_SHOWN])}{more}")


def check_locale(name: str = _LOCALE) -> HostFinding:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return warn(f"{name} is not there", f"models that normalise texts need it: localedef -i en_US -f UTF-8 {name}")
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return ok(name)


def installed_at_s() -> float:
    """Returns when this release was written to this disk, or earlier where a wheel says so."""
    return Path(__file__).stat().st_mtime


def judge_clock(now_s: float, installed_s: float) -> HostFinding:
    """Judges this host's clock where no other tells the time: it cannot be long before this release was installed."""
    remedy = "see that chrony or systemd-timesyncd runs: rules, tokens and windows go by the clock"
    if now_s < installed_s - _CLOCK_BEHIND_S:
        dates = (datetime.fromtimestamp(at, UTC).date().isoformat() for at in (now_s, installed_s))
        return fail("it is {} here, and this release was installed on {}".format(*dates), remedy)
    return unknown("there is no other clock to compare with", remedy)


def judge_cpus(on_host: int, quota: float, workers: int) -> HostFinding:
    seen = f"{on_host} on the host, {quota:g} allowed to this process, {workers} worker{'s' if workers > 1 else ''}"
    if workers > max(1.0, quota) * 2:
        return warn(seen, f"--workers {max(1, round(quota))}: more of them take turns, and each holds every model")
    if quota < 1:
        return warn(seen, "less than one CPU: the supervisor, the compactor and a worker share it; raise the limit")
    return ok(seen)


def judge_memory(allowed: int, config: Config) -> HostFinding:
    """Compares what may be held at once with what there is; models come on top, in each worker."""
    if not allowed:
        return unknown("the system does not tell", "compare the container's limit with docs/deployment.md, Capacity")
    workers = config.process.workers
    held = workers * (config.limits.max_in_flight_bytes + config.log.buffer_bytes)
    holdings = f"requests and log of {workers} workers may hold {rounded_bytes(held)}, models come on top"
    seen = f"{rounded_bytes(allowed)} allowed; {holdings}"
    if config.process.worker_memory_bytes * (workers + 1) > allowed:
        return warn(seen, f"--worker-memory-bytes for {workers} workers and a successor is more than is allowed")
    if held > allowed:
        return warn(
            seen, "lower --max-in-flight-bytes or raise the limit: else the kernel kills workers under overload"
        )
    return ok(seen)


def check_certificate(config: Config, now_s: float) -> HostFinding:
    files = config.tls.files
    if files is None:
        where = config.listen.host
        return (
            ok(f"plain text on {where}") if not config.listen.reachable else warn(f"plain text on {where}", "--tls-*")
        )
    return judge_certificate(read(files).not_after_s, now_s)


def judge_certificate(not_after_s: float, now_s: float) -> HostFinding:
    end = datetime.fromtimestamp(not_after_s, UTC).date().isoformat()
    left_s = not_after_s - now_s
    seen = f"ends on {end}, in {left_s / 86_400:.0f} days"
    if left_s <= 0:
        return fail(f"ended on {end}", "renew it: clients refuse it")
    return warn(seen, "renew it; new files are taken without a restart") if left_s < _CERTIFICATE_WARN_S else ok(seen)


def check_issuer(keys: str) -> HostFinding:
    """Whether the keys of the issuer can be had now, where they are fetched; files are read by `configuration`."""
    if "://" not in keys:
        return ok("no URL is named")
    text, trouble = answer_at(keys)
    try:
        known = 0 if trouble else len(parse_keys(text))
    except InvalidArgument as error:
        trouble = str(error)
    if trouble:
        remedy = "without keys every JWT is refused; try --jwt-keys with curl from this host"
        return fail(f"its keys cannot be fetched: {trouble}", remedy)
    return ok(f"{known} keys")


def check_secrets(config: Config) -> HostFinding:
    """The rights of files that let somebody in, or say who may do what."""
    private = [config.tls.key, config.events.webhook_secret_file]
    trusted = [config.access.tokens, config.access.roles, config.limits.quotas, config.models.require_signature]
    named = [path for path in (*private, *trusted) if path is not None]
    if not named:
        return ok("none are named")
    wrong = [*_readable(path for path in private if path is not None), *_writable(path for path in named)]
    if wrong:
        return fail("; ".join(wrong), "chmod 0640 (0600 for keys), owner root, group the gateway's user")
    return ok(", ".join(str(path) for path in named))


def _readable(paths: Iterable[Path]) -> list[str]:
    return [f"{path} can be read by everyone" for path in paths if _mode(path) & stat.S_IROTH]


def _writable(paths: Iterable[Path]) -> list[str]:
    return [f"{path} can be changed by everyone" for path in paths if _mode(path) & stat.S_IWOTH]


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        return 0 if error.errno == errno.ENOENT else stat.S_IWOTH
