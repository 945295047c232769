"""Puts the manifest on the host. The machine is told what there is by SHA-256 and lacks all of it, or little of it if
it was uploaded to before: what is missing comes as one archive over SFTP, verified there. `infra/` is there first,
so that the environment may be made meanwhile.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.events import Progress
from orchestrator.packing import pack_contents
from orchestrator.ports import Session
from orchestrator.resources import Manifest, TravelFile
from orchestrator.store import Place
from orchestrator.tar import Written

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
        tell(f"{unpacked:,} bytes in {len(self.missing)} files are not on the machine", None)
        packed = self._sent(_Counter(unpacked, tell))
        self.place.complete(packed.sha256, size=packed.size + unpacked)
        tell(f"arrived as it left, by its SHA-256, in {packed.size:,} bytes", None)

    def _sent(self, counter: "_Counter") -> Written:
        """Pack and send at once, through a pipe: neither waits for the other, and nothing lies on a disk here."""
        outlet, inlet = os.pipe()

        def pack() -> Written:
            with os.fdopen(inlet, "wb", _CHUNK) as target:
                return pack_contents(target, self.missing, on_bytes=counter.packed)

        # The outlet closes first, whatever happens: packing then ends, too.
        with ThreadPoolExecutor(1) as pool, os.fdopen(outlet, "rb", _CHUNK) as source:
            packing = pool.submit(pack)
            self.place.session.put(source, self.place.contents, on_bytes=counter.sent)
        return packing.result()


@dataclass(slots=True)
class _Counter:
    """Tells how much of the contents has gone, about a hundred times, however much it is."""

    total: int
    tell: Tell
    done: int = 0
    told_at: int = 0

    def packed(self, more: int) -> None:
        """So many bytes more are on their way."""
        self.done += more

    def sent(self, _bytes: int) -> None:
        """Some of the archive was taken."""
        if (self.done >= self.total > self.told_at) or self.done - self.told_at >= max(_CHUNK, self.total // 100):
            self.told_at = self.done
            self.tell("", Progress(self.done, self.total, "bytes"))


def begin_upload(session: Session, manifest: Manifest, *, root: str, extra: Mapping[str, bytes]) -> Upload:
    """Make `root`, which must not exist yet, with `infra/` and the `extra` files (path under `root` to content)."""
    first = tuple(file for file in manifest.files if file.destination.is_relative_to(_FIRST))
    rest = tuple(file for file in manifest.files if not file.destination.is_relative_to(_FIRST))
    place = Place(session, root)
    return Upload(place, manifest, place.begin(rest, at_once=first, extra=extra))


def upload(session: Session, manifest: Manifest, *, root: str, extra: Mapping[str, bytes], tell: Tell) -> None:
    """All of it, from nothing to a whole folder."""
    begin_upload(session, manifest, root=root, extra=extra).complete(tell)
