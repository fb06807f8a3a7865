"""Who asks a registry: credentials from where its own tools look for them, read anew for each request.

    MLflow         MLFLOW_TRACKING_TOKEN; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD
    Hugging Face   HF_TOKEN; the file HF_TOKEN_PATH, or token in HF_HOME (~/.cache/huggingface)
    OCI            config.json in DOCKER_CONFIG (~/.docker), with its credential helpers; REGISTRY_AUTH_FILE

This is the one module of the loaders that reads the environment.
"""

import base64
import binascii
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

_HELPER_S: Final = 10.0


def tracking_uri() -> str:
    """Returns the address of the MLflow server that the environment names, "" if it names none."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or ""


def s3_endpoint() -> str:
    """Returns the address of the object store in which an MLflow server keeps artifacts, "" for Amazon's."""
    return os.environ.get("MLFLOW_S3_ENDPOINT_URL", "")


def mlflow_headers() -> Mapping[str, str]:
    """Returns what proves to an MLflow server who asks."""
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"Authorization": basic(user, password)}
    return {"Authorization": f"Bearer {token}"} if token else {}


def hub_endpoint() -> str:
    """Returns the address of the Hugging Face hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_headers() -> Mapping[str, str]:
    """Returns what proves to the hub who asks."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        home = os.environ.get("HF_HOME", "~/.cache/huggingface")
        path = os.environ.get("HF_TOKEN_PATH") or f"{home}/token"
        try:
            token = Path(path).expanduser().read_text("ascii").strip()
        except (OSError, UnicodeError):
            return {}
    return {"Authorization": f"Bearer {token}"} if token else {}


def container_login(host: str) -> tuple[str, str]:
    """Returns user and password (or token) for a registry of containers, ("", "") where there are none."""
    for path in _container_files():
        try:
            config = msgspec.json.decode(path.read_bytes(), type=_ContainerConfig)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        helper = config.credHelpers.get(host, config.credsStore)
        if helper and "/" not in helper:
            login = _from_helper(helper, host)
            if login != ("", ""):
                return login
        for name in (host, f"https://{host}", f"https://{host}/v1/"):
            if name in config.auths:
                return config.auths[name].login()
    return "", ""


def basic(user: str, password: str) -> str:
    """Returns the value of an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode('ascii')}"


class _ContainerAuth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""

    def login(self) -> tuple[str, str]:
        if not self.auth:
            return self.username, self.password
        try:
            user, _, password = base64.b64decode(self.auth).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, password


class _ContainerConfig(msgspec.Struct):
    auths: dict[str, _ContainerAuth] = {}
    credHelpers: dict[str, str] = {}
    credsStore: str = ""


class _HelperAnswer(msgspec.Struct):
    Username: str = ""
    Secret: str = ""


def _container_files() -> list[Path]:
    named = os.environ.get("REGISTRY_AUTH_FILE")
    directory = os.environ.get("DOCKER_CONFIG", "~/.docker")
    return [Path(path).expanduser() for path in (named, f"{directory}/config.json") if path]


def _from_helper(helper: str, host: str) -> tuple[str, str]:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=host.encode(),
            capture_output=True,
            timeout=_HELPER_S,
            check=True,
        )
        answer = msgspec.json.decode(done.stdout, type=_HelperAnswer)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError, UnicodeDecodeError):
        return "", ""
    return answer.Username, answer.Secret
