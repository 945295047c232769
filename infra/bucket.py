"""Keeps a run in a bucket of the user's: runs on the rented machine, in the run's folder, by the rights of its instance
profile.
    bucket.py try       put a first object there, before anything is trained
    bucket.py beside    put log, metrics and checkpoints there until `run/exit` is there
    bucket.py finish    put there what the training made and, last of all, a manifest; then end the machine
What to put where is told by `run/bucket.json`. Each object carries its SHA-256 in its metadata.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_RUN = Path("run")
_MANIFEST = "manifest.json"
_TOLD = ("log.txt", "metrics.jsonl", "status.json")
"""What grows while the training goes on."""
_TOLD_SECONDS, _CHECKPOINT_SECONDS, _LOOK_SECONDS, _AGAIN_SECONDS = 15.0, 60.0, 1.0, 60.0
_ATTEMPTS = 5
_TROUBLE = (Boto3Error, BotoCoreError, ClientError, OSError)


@dataclass(frozen=True)
class Orders:
    """What `run/bucket.json` tells."""

    bucket: str
    prefix: str
    region: str
    names: Sequence[str]
    """Files of the run that a training leaves."""
    checkpoints: str
    """Name of the archive of the newest checkpoint."""

    @classmethod
    def read(cls, run: Path) -> "Orders":
        """Of a run's folder."""
        told = json.loads((run / "bucket.json").read_text(encoding="utf-8"))
        return cls(**{name: told[name] for name in cls.__dataclass_fields__})

    @property
    def url(self) -> str:
        """`s3://NAME/PREFIX`."""
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass
class Keeper:
    """Puts files of the folder `run` into the bucket, each again only when it has changed."""

    run: Path
    orders: Orders
    client: Any
    clock: Callable[[], float] = time.monotonic
    seen: dict[str, object] = field(default_factory=dict[str, object])
    due: dict[str, float] = field(default_factory=dict[str, float])

    def put(self, name: str, data: bytes) -> None:
        """An object of these bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.client.put_object(
            Bucket=self.orders.bucket, Key=f"{self.orders.prefix}/{name}", Body=data, Metadata={"sha256": sha256}
        )

    def put_file(self, path: Path, name: str) -> dict[str, Any]:
        """A file that nobody writes to any more; its line of the manifest."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        extra = {"Metadata": {"sha256": sha256}}
        self.client.upload_file(str(path), self.orders.bucket, f"{self.orders.prefix}/{name}", ExtraArgs=extra)
        return {"name": name, "size": path.stat().st_size, "sha256": sha256}

    def look(self) -> None:
        """Put there what is new, if it is time to."""
        if self._is_due("told", _TOLD_SECONDS):
            for path in (self.run / name for name in _TOLD):
                if path.is_file() and self._has_changed(path.name, path.stat().st_size, path.stat().st_mtime_ns):
                    self.put(path.name, path.read_bytes())
        self._put_checkpoint()

    @property
    def is_taken_back(self) -> bool:
        """Whether the training ended because AWS takes the machine: another may go on, so that the run is not over."""
        return self._status() != 0 and (self.run / "interruption.json").exists()

    def finish(self) -> None:
        """Put there whatever the training made and, once that is there, the manifest, unless the run is not over."""
        status = self._status()
        files = [self.put_file(self.run / name, name) for name in self.orders.names if (self.run / name).is_file()]
        checkpoint = self._packed() if status != 0 else None
        if checkpoint is not None:
            files.append(self.put_file(checkpoint, self.orders.checkpoints))
        if self.is_taken_back:
            return
        manifest = {"exit_status": status, "ended_at": datetime.now(UTC).isoformat(), "files": files}
        self.put(_MANIFEST, json.dumps(manifest, indent=1).encode())

    def _status(self) -> int:
        return int((self.run / "exit").read_text(encoding="utf-8"))

    def _put_checkpoint(self) -> None:
        newest = _newest(self.run / "checkpoints")
        if newest is None or self.seen.get("checkpoints") == (newest.name,):
            return
        if self._is_due("checkpoints", _CHECKPOINT_SECONDS):
            packed = self._packed()
            if packed is not None:
                self.put_file(packed, self.orders.checkpoints)
                self._has_changed("checkpoints", newest.name)

    def _packed(self) -> Path | None:
        """The newest checkpoint in an archive, as it is to lie in `run/`; `None` if there is none."""
        newest, packed = _newest(self.run / "checkpoints"), self.run / ".kept-checkpoints.tar"
        if newest is None:
            return None
        with tarfile.open(packed, "w") as archive:
            archive.add(newest, f"checkpoints/{newest.name}")
        return packed

    def _is_due(self, what: str, seconds: float) -> bool:
        now = self.clock()
        if now < self.due.get(what, now):
            return False
        self.due[what] = now + seconds
        return True

    def _has_changed(self, name: str, *looks: object) -> bool:
        if self.seen.get(name) == looks:
            return False
        self.seen[name] = looks
        return True


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    deeds = {"try": first_object, "beside": keep_beside, "finish": finish_and_end}
    if len(arguments) != 1 or arguments[0] not in deeds:
        print("usage: bucket.py try|beside|finish", file=sys.stderr)
        return 2
    orders = Orders.read(_RUN)
    with _client(orders) as client:
        return deeds[arguments[0]](Keeper(_RUN, orders, client))


def first_object(keeper: Keeper) -> int:
    """Whether the machine may write there, before it costs more than it has. The object takes the manifest's
    place: what another machine of the run may have written there counts no more.
    """
    try:
        keeper.put(_MANIFEST, json.dumps({"begun_at": datetime.now(UTC).isoformat()}).encode())
    except _TROUBLE as error:
        print(
            f"the machine may not write to {keeper.orders.url}: {_one_line(error)}; the role of its instance profile "
            "must allow s3:PutObject there",
            file=sys.stderr,
        )
        return 1
    return 0


def keep_beside(keeper: Keeper) -> int:
    """Until the trainer has written its exit status. What fails is tried again with the next change."""
    while not (keeper.run / "exit").exists():
        try:
            keeper.look()
        except _TROUBLE as error:
            _say(f"not kept for now: {_one_line(error)}")
        time.sleep(_LOOK_SECONDS)
    return 0


def finish_and_end(keeper: Keeper) -> int:
    """The machine ends only when everything is there; until then it tries, and its timer runs on."""
    while True:
        try:
            keeper.finish()
            break
        except _TROUBLE as error:
            _say(f"not kept: {_one_line(error)}; trying again in {_AGAIN_SECONDS:g} s")
            time.sleep(_AGAIN_SECONDS)
    if keeper.is_taken_back:
        _say(f"kept in {keeper.orders.url} as far as it came; AWS ends the machine")
        return 0
    _say(f"kept in {keeper.orders.url}; the machine ends itself")
    return subprocess.run(["sudo", "-n", "systemctl", "poweroff"], check=False).returncode


@contextmanager
def _client(orders: Orders) -> Generator[Any]:
    config = Config(retries={"mode": "standard", "total_max_attempts": _ATTEMPTS})
    client = boto3.Session(region_name=orders.region).client("s3", config=config)
    try:
        yield client
    finally:
        client.close()


def _newest(checkpoints: Path) -> Path | None:
    """The folder of the highest step; those that are being written or removed have other names."""
    if not checkpoints.is_dir():
        return None
    return max((path for path in checkpoints.iterdir() if path.name.isdigit()), key=lambda p: int(p.name), default=None)


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
