"""The embedded machine's hardware: its folders, the programs that a cloud image would have and this
computer must not run for real, the environment of its commands, and the power switch.
"""

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

MACHINES = "machines"
"""Folder of a mocked AWS in which its machines have theirs."""
_MARK = "LAUNCH_AND_TRAIN_MACHINE"
_PATIENCE_SECONDS = 5.0
_SUDO = """#!/bin/sh
# The login user is already as mighty as this machine allows.
while [ $# -gt 0 ]; do
  case "$1" in
    --) shift; break ;;
    -u|-g|-h|-p|-C|-T|-r|-t) shift 2 ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || exit 0
exec "$@"
"""
_SHUTDOWN = """#!/bin/sh
# A moment, as epoch seconds, in the file of the power switch.
when=now
for word in "$@"; do
  case "$word" in
    -c) rm -f {switch}; exit 0 ;;
    -*) ;;
    now|+*|[0-9]*) when="$word"; break ;;
  esac
done
case "$when" in
  now|+0) at=0 ;;
  +*) at=$(( $(date +%s) + ${{when#+}} * 60 )) ;;
  *:*) at=$(date -d "$when" +%s) || exit 1 ;;
  *) at=$(( $(date +%s) + when * 60 )) ;;
esac
echo "$at" > {switch}.new && mv {switch}.new {switch}
"""
_POWEROFF = "#!/bin/sh\necho 0 > {switch}.new && mv {switch}.new {switch}\n"
_SYSTEMD_RUN = """#!/bin/sh
# A timer for power-off; nothing else, which would reach beyond the machine.
for word in "$@"; do
  case "$word" in
    --on-active=*) seconds=${{word#--on-active=}} ;;
  esac
done
case "$*" in
  *poweroff*) echo "$(( $(date +%s) + seconds ))" > {switch}.new && mv {switch}.new {switch} ;;
  *) echo "systemd-run: a machine of a dry run does not do this" >&2; exit 1 ;;
esac
"""
_SYSTEMCTL = """#!/bin/sh
case "$*" in
  "stop launch-and-train-idle.timer") rm -f {switch} ;;
  *poweroff*|*halt*) exec {bin}/poweroff ;;
esac
exit 0
"""
_CLOUD_INIT = "#!/bin/sh\necho 'status: done'\n"
_REFUSED = """#!/bin/sh
echo "${0##*/}: a machine of a dry run does not do this" >&2
exit 1
"""
_HOSTS_OWN = ("apt", "apt-get", "dpkg", "snap", "mount", "umount", "reboot", "crontab", "at")
"""Programs that would reach beyond the machine, to the computer it is embedded in."""


class Hardware:
    """A machine's folders and processes. Nothing of it is left after `cut_power`."""

    def __init__(self, folder: Path, machine_id: str, settings: Mapping[str, str], *, devices: int) -> None:
        self._folder = folder
        self._settings = settings
        self._machine_id = machine_id
        self._devices = devices
        self._leaders: set[int] = set()
        self._off = False
        self.surroundings: Mapping[str, str] = {}
        """What every command finds besides."""
        self.home = folder / "home"
        self._bin = folder / "bin"
        self._switch = folder / "power-off-at"

    def assemble(self) -> None:
        """Make the folders, the programs of the image and the note of the ready environment."""
        for place in (self.home, self._bin, self._folder / "tmp"):
            place.mkdir(parents=True)
        for name, text in self._programs().items():
            program = self._bin / name
            program.write_text(text, encoding="utf-8")
            program.chmod(0o755)
        note = self.home / ".launch-and-train" / "environment"
        note.parent.mkdir()
        note.write_text(f"python={sys.executable}\nbackend=cpu\n", encoding="utf-8")

    def environment(self) -> Mapping[str, str]:
        """What every command finds: nothing of ours, no AWS but the mocked one, CPU devices in place of GPUs."""
        return {
            "PATH": f"{self._bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "USER": "ubuntu",
            "LOGNAME": "ubuntu",
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "TMPDIR": str(self._folder / "tmp"),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={self._devices}",
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "AWS_EC2_METADATA_DISABLED": "true",
            **self._settings,
            _MARK: self._machine_id,
            **self.surroundings,
        }

    def trains(self) -> bool:
        """Whether a training on the machine has finished an epoch."""
        for status in self.home.glob("launch-and-train/*/run/status.json"):
            with suppress(OSError, ValueError):
                if json.loads(status.read_text(encoding="utf-8")).get("state") == "training":
                    return True
        return False

    def started(self, pid: int) -> None:
        """Remember a process that leads a session of its own, for as long as it runs."""
        self._leaders.add(pid)
        if self._off:
            self._kill_sessions()

    def ended(self, pid: int) -> None:
        """Forget a process: its number may soon be another's."""
        self._leaders.discard(pid)

    def wants_off(self, now: float) -> bool:
        """Whether a command on the machine asked for power-off, and its time (epoch) has come."""
        try:
            return float(self._switch.read_text(encoding="utf-8")) <= now
        except (OSError, ValueError):
            return False

    def cut_power(self) -> None:
        """End every process of the machine, detached ones too, and wipe its folders."""
        self._off = True
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (pids := tuple(self._processes())) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._kill_sessions()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill_sessions(self) -> None:
        for leader in tuple(self._leaders):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)

    def _programs(self) -> Mapping[str, str]:
        switch = shlex.quote(str(self._switch))
        poweroff = _POWEROFF.format(switch=switch)
        return {
            **dict.fromkeys(_HOSTS_OWN, _REFUSED),
            "sudo": _SUDO,
            "shutdown": _SHUTDOWN.format(switch=switch),
            "poweroff": poweroff,
            "halt": poweroff,
            "systemctl": _SYSTEMCTL.format(bin=shlex.quote(str(self._bin)), switch=switch),
            "systemd-run": _SYSTEMD_RUN.format(switch=switch),
            "cloud-init": _CLOUD_INIT,
        }

    def _processes(self) -> Iterator[int]:
        mark = f"{_MARK}={self._machine_id}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                state, session = _state_and_session(entry)
                if state not in "ZX" and (
                    session in self._leaders or mark in (entry / "environ").read_bytes().split(b"\0")
                ):
                    yield int(entry.name)


def _state_and_session(entry: Path) -> tuple[str, int]:
    # The command name, in brackets, may hold spaces: count from the last bracket.
    words = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return words[0], int(words[3])
