import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from orchestrator.keys import make_host_key, make_login_key


def public_of(private: bytes) -> str:
    key = load_ssh_private_key(private, password=None)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_the_private_half_is_for_the_owners_eyes_only_and_fits_the_public_half(tmp_path: Path):
    pair = make_login_key(tmp_path / "key.pem", "mine")
    assert stat.S_IMODE(pair.private_path.stat().st_mode) == 0o600
    assert public_of(pair.private_path.read_bytes()) == pair.public_openssh
    assert pair.name == "mine"


def test_the_fingerprint_is_the_one_openssh_shows(tmp_path: Path):
    pair = make_login_key(tmp_path / "key.pem", "mine")
    try:
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", "-"], input=pair.public_openssh, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no ssh-keygen is installed here")
    assert shown.stdout.split()[1] == pair.fingerprint


def test_a_key_that_lies_there_is_replaced_whatever_its_mode(tmp_path: Path):
    path = tmp_path / "key.pem"
    path.write_text("old")
    path.chmod(0o644)
    pair = make_login_key(path, "mine")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_of(path.read_bytes()) == pair.public_openssh


def test_a_host_key_is_new_each_time_its_halves_fit_and_its_private_half_is_not_shown():
    first, second = make_host_key(), make_host_key()
    assert first.public_openssh != second.public_openssh
    assert public_of(first.private_openssh.encode()) == first.public_openssh
    assert first.private_openssh not in repr(first)
