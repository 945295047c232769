"""User data as the embedded machine reads it."""

import base64
import gzip

import pytest

from orchestrator.dryrun.first_boot import SELF_DESTRUCT_PATH, FirstBoot, decode_user_data, read_user_data

TEXT = f"""#cloud-config
ssh_keys:
  ed25519_private: |
    PRIVATE
write_files:
  - path: /somewhere/else
    content: "1"
  - path: {SELF_DESTRUCT_PATH}
    content: |
      7200
"""


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_host_key_and_timer_are_read_from_plain_and_zipped_user_data(pack: type[bytes]):
    assert read_user_data(pack(TEXT.encode())) == FirstBoot("PRIVATE\n", 7200.0)


@pytest.mark.parametrize(
    "raw",
    [b"", b"#!/bin/sh\nssh_keys: {}", b"#cloud-config\n[", b"#cloud-config\nssh_keys: 3", b"\x1f\x8bbroken", b"\xff"],
)
def test_what_is_no_cloud_config_asks_nothing(raw: bytes):
    assert read_user_data(raw) == FirstBoot()


def test_user_data_that_is_not_base64_is_refused():
    assert decode_user_data(base64.b64encode(b"x").decode()) == b"x"
    with pytest.raises(ValueError, match="base64"):
        decode_user_data("***")
