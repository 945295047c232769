"""The machine's store: contents of files by SHA-256, from which runs' folders are made by hard links. What is kept is
for reading only and of 1970: a file that is not so, or not of its size, was meddled with and is sent again. What no
run of the last few holds any more is removed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.errors import CommandFailed, TransferMismatch
from orchestrator.packing import pack_links, pack_plain, store_name
from orchestrator.ports import Session
from orchestrator.resources import TravelFile

_FOLDER = "store"
_KEPT_RUNS = 3
_PATIENCE_SECONDS = 120.0
_SLOWEST_BYTES_PER_SECOND = 5e6
"""At which the machine is trusted to hash and unpack, on a disk still being filled from a snapshot."""
_OPEN = """\
set -eu
home=$1 root=$1/$2
mkdir -p "$home/store"
mkdir -m 700 "$root"
mkdir "$root/.upload"
cat > "$root/.upload/head"
sum=$(sha256sum "$root/.upload/head")
echo "${sum%% *}"
[ "${sum%% *}" = "$3" ] || exit 0
tar -C "$root" --no-same-owner -xf "$root/.upload/head"
LC_ALL=C
export LC_ALL
find "$home/store" -maxdepth 1 -type f ! -newermt @0 ! -perm /222 -printf '%f %s\\n' | sort > "$root/.upload/there"
comm -13 "$root/.upload/there" "$root/.upload/wanted"
"""
"""Begins a run's folder with the archive on standard input; prints its SHA-256, then what of `wanted` is missing."""
_CLOSE = """\
set -eu
home=$1 root=$1/$2
if [ -n "$3" ]; then
  sum=$(sha256sum "$root/.upload/contents")
  echo "${sum%% *}"
  [ "${sum%% *}" = "$3" ] || exit 0
  tar -C "$home/store" --no-same-owner -xpf "$root/.upload/contents"
fi
tar -C "$home" -xf "$root/.upload/links"
: > "$root/.uploaded"
rm -rf "$root/.upload"
kept=$4
set -- "$home"/*/.uploaded
while [ $# -gt "$kept" ]; do
  folder=${1%/.uploaded}
  rm -rf "$folder/tree" "$folder/data" "$1"
  shift
done
find "$home/store" -maxdepth 1 -type f -links 1 -delete
"""
"""Takes new contents in, makes the run's folder, and forgets what only older runs held."""


@dataclass(frozen=True, slots=True)
class Place:
    """A run's folder on the machine, `root`, beside which the store lies."""

    session: Session
    root: str

    @property
    def contents(self) -> str:
        """Where an archive of what is missing is to be put."""
        return f"{self.root}/.upload/contents"

    def begin(
        self, files: Sequence[TravelFile], *, at_once: Sequence[TravelFile], extra: Mapping[str, bytes]
    ) -> tuple[TravelFile, ...]:
        """Make the folder, which must not exist yet, with `at_once` and `extra` in it; of the contents of `files` those
        that the machine lacks, each once. One command.
        """
        # In the order in which comm(1) wants them: `LC_ALL=C`.
        contents = {store_name(file): file for file in files if file.size}
        wanted = sorted(f"{name} {file.size}\n".encode() for name, file in contents.items())
        links = pack_links(files, root=PurePosixPath(self.root).name, store=_FOLDER)
        head = pack_plain(at_once, {**extra, ".upload/wanted": b"".join(wanted), ".upload/links": links})
        sha256 = hashlib.sha256(head).hexdigest()
        arrived, *missing = self._run(_OPEN, sha256, stdin=head).splitlines()
        _expect(arrived, sha256, self.root)
        return tuple(contents[line.partition(" ")[0]] for line in missing)

    def complete(self, sha256: str, *, size: int) -> None:
        """Take in the archive at `contents`, of this SHA-256 and so many bytes packed and unpacked (an empty SHA-256:
        there is none), and finish the folder. One command.
        """
        patience = _PATIENCE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND
        said = self._run(_CLOSE, sha256, str(_KEPT_RUNS), patience=patience)
        if sha256:
            _expect(said.strip(), sha256, self.contents)

    def _run(
        self, script: str, *arguments: str, stdin: bytes | None = None, patience: float = _PATIENCE_SECONDS
    ) -> str:
        root = PurePosixPath(self.root)
        command = ("sh", "-c", script, "upload", str(root.parent), root.name, *arguments)
        done = self.session.run(command, stdin=stdin, timeout_seconds=patience)
        if done.exit_status != 0:
            words = done.stderr.strip() or f"status {done.exit_status}"
            raise CommandFailed(f"the upload failed on the machine: {words}")
        return done.stdout


def _expect(arrived: str, left: str, where: str) -> None:
    if arrived.lstrip("\\") != left:
        raise TransferMismatch(f"{where}: the upload arrived as SHA-256 {arrived}, it left as {left}")
