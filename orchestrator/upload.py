"""Puts the manifest on the host. The machine is told what there is by SHA-256 and lacks all of it, or little of it if
it was uploaded to before: what is missing comes as one archive over SFTP, verified there. `infra/` is there first,
so that the environment may be made meanwhile.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from orchestrator.events import Progress
from orchestrator.packing import pack_contents
from orchestrator.ports import Session
from orchestrator.resources import Manifest, TravelFile
from orchestrator.store import Place

_FIRST = PurePosixPath("tree/infra")
_CHUNK = 1 << 20

Tell = Callable[[str, Progress | None], None]


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that has begun: `infra/` and what is not in the manifest are there, `missing` is not."""

    place: Place
    manifest: Manifest
    missing: tuple[TravelFile, ...]

    def complete(self, tell: Tell) -> None:
        """Send what is missing and finish the run's folder. Raises `TransferMismatch` where a file has changed since
        it was listed or the archive arrives differently.
        """
        if not self.missing:
            self.place.complete("", size=0)
            tell(f"all {len(self.manifest.files)} files were on the machine", None)
            return
        unpacked = sum(file.size for file in self.missing)
        with tempfile.NamedTemporaryFile(prefix="launch-and-train-", suffix=".tar") as file:
            sha256 = pack_contents(file.file, self.missing)
            file.flush()
            size = file.tell()
            tell(f"{unpacked:,} bytes in {len(self.missing)} files, {size:,} packed", None)
            self.place.session.put(Path(file.name), self.place.contents, on_bytes=_progress(size, tell))
        self.place.complete(sha256, size=size + unpacked)
        tell("arrived as it left, by its SHA-256", None)


def begin_upload(session: Session, manifest: Manifest, *, root: str, extra: Mapping[str, bytes]) -> Upload:
    """Make `root`, which must not exist yet, with `infra/` and the `extra` files (path under `root` to content)."""
    first = tuple(file for file in manifest.files if file.destination.is_relative_to(_FIRST))
    rest = tuple(file for file in manifest.files if not file.destination.is_relative_to(_FIRST))
    place = Place(session, root)
    return Upload(place, manifest, place.begin(rest, at_once=first, extra=extra))


def upload(session: Session, manifest: Manifest, *, root: str, extra: Mapping[str, bytes], tell: Tell) -> None:
    """All of it, from nothing to a whole folder."""
    begin_upload(session, manifest, root=root, extra=extra).complete(tell)


def _progress(size: int, tell: Tell) -> Callable[[int], None]:
    """Told about a hundred times, however large the archive is."""
    told_at = 0

    def on_bytes(done: int) -> None:
        nonlocal told_at
        if done >= size or done - told_at >= max(_CHUNK, size // 100):
            told_at = done
            tell("", Progress(done, size, "bytes"))

    return on_bytes
