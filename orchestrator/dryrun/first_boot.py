"""User data as cloud-init would read it: the part that the embedded machine honours."""

import base64
import binascii
import gzip
from dataclasses import dataclass, field
from typing import Any

import yaml

SELF_DESTRUCT_PATH = "/etc/launch-and-train/self-destruct-after-seconds"


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What the user data asks of the machine; `None` where it asks nothing."""

    host_key_private: str | None = field(default=None, repr=False)
    self_destruct_seconds: float | None = None


def decode_user_data(encoded: str) -> bytes:
    """User data as RunInstances carries it: base64, perhaps of gzip. Raises `ValueError`."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError("the user data is not base64") from error
    return raw


def read_user_data(raw: bytes) -> FirstBoot:
    """Parse a cloud-config; anything else asks nothing, as cloud-init would have it."""
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
        document = yaml.safe_load(text) if text.startswith("#cloud-config") else None
    except (OSError, EOFError, UnicodeDecodeError, yaml.YAMLError):
        document = None
    if not isinstance(document, dict):
        return FirstBoot()
    return FirstBoot(_host_key(document), _self_destruct(document))


def _host_key(document: dict[str, Any]) -> str | None:
    keys = document.get("ssh_keys")
    private = keys.get("ed25519_private") if isinstance(keys, dict) else None
    return private if isinstance(private, str) else None


def _self_destruct(document: dict[str, Any]) -> float | None:
    files = document.get("write_files")
    for entry in files if isinstance(files, list) else ():
        if isinstance(entry, dict) and entry.get("path") == SELF_DESTRUCT_PATH:
            try:
                return float(str(entry.get("content", "")).strip())
            except ValueError:
                return None
    return None
