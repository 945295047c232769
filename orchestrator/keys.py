"""SSH keys made here, ed25519 in OpenSSH text form: the one that logs in and the one that the machine will
show. Who uses them is unknown here.
"""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from orchestrator.resources import HostKeyPair, KeyPair

_PRIVATE_MODE = 0o600


def make_login_key(path: Path, name: str) -> KeyPair:
    """A key pair called `name`; the private half is written to `path`, for the owner's eyes only, and
    replaces what lay there. The fingerprint is OpenSSH's (`SHA256:…`).
    """
    key = Ed25519PrivateKey.generate()
    path.unlink(missing_ok=True)
    # Born with its mode: there is no moment in which others could open it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE), "wb") as file:
        file.write(_private(key))
    public = _public(key)
    return KeyPair(name=name, fingerprint=_fingerprint(public), public_openssh=public, private_path=path)


def make_host_key() -> HostKeyPair:
    """A host key pair."""
    key = Ed25519PrivateKey.generate()
    return HostKeyPair(private_openssh=_private(key).decode("ascii"), public_openssh=_public(key))


def _private(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def _fingerprint(public_openssh: str) -> str:
    digest = hashlib.sha256(base64.b64decode(public_openssh.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"
