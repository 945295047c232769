"""`RunSpec`: what the user asked for, parsed strictly from TOML, flags laid over it. Knows no AWS
id and no present time.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.errors import UsageError
from orchestrator.resources import Market

_InstanceType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")]
_Positive = Annotated[Decimal, Field(gt=0)]


_BUCKET_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """`s3://NAME/PREFIX`, taken apart."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """`ValueError` where it is no such URL."""
        found = _BUCKET_URL.fullmatch(url)
        if found is None:
            raise ValueError(f"{url!r} is not of the form s3://NAME/PREFIX")
        return cls(found["bucket"], found["path"])


def _bucket_url(text: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-]+)+", text):
        raise ValueError("s3://NAME/PREFIX is wanted, a bucket that is there and a folder in it")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSettings(_Strict):
    """The trainer's settings, passed on as they are; the trainer knows what they mean."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """`None`: what the trainer says of the network; a plan always has a number."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """As `batch_size`; at most, where the network stops early."""
    k: Annotated[int, Field(ge=1)] = 10
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 12134
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    tune_trials: Annotated[int, Field(ge=0)] = 0
    """Combinations of what the network leaves open that are tried before the best is trained."""
    tune_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    analog: bool = False
    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def epochs_in_all(self) -> int | None:
        """At most, those of trials too."""
        return None if self.epochs is None else self.epochs * (1 + self.tune_trials)


class RunSpec(_Strict):
    """One run. Relative paths in a TOML file count from that file's folder."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")] = "run"
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    instance_types: tuple[_InstanceType, ...] = ()
    """Acceptable types, best first; empty: whatever has `gpus` and `gpu_memory_gib`."""
    nodes: Annotated[int, Field(ge=1, le=32)] = 1
    """So many machines of one type and in one zone, which train as one."""
    gpus: Annotated[int, Field(ge=1)] | None = None
    """At least so many in a machine."""
    gpu_memory_gib: Annotated[float, Field(gt=0)] | None = None
    """At least so much on each."""
    market: Literal["on_demand", "spot", "cheapest"] = "on_demand"
    """`cheapest`: both, by what the run costs."""
    fallback: bool = False
    """Rent on demand where spot is refused."""
    wait_capacity_minutes: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """For how long to ask again and again while AWS has none of the offers."""
    max_usd_per_hour: _Positive | None = None
    max_usd: _Positive | None = None
    max_hours: _Positive = Decimal(1)
    keep_alive_minutes: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    """For how long the machine of a run that ended well is kept for the next one."""
    image: Annotated[str, Field(min_length=1)] = "dlami-base"
    """An id (`ami-…`), an SSM parameter name (`/aws/service/…`) or a family (`dlami-base`)."""
    volume_gib: Annotated[int, Field(ge=8)] = 150
    must_fit: bool = True
    """Leave out instance types whose GPUs the trainer reckons too small."""
    instance_profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9+=,.@_-]{1,128}$")] | None = None
    """Name of the profile that gives the machine AWS rights of its own; `None`: it has none."""
    bucket: Annotated[str, AfterValidator(_bucket_url)] | None = None
    """`s3://NAME/PREFIX`: the machine puts there what it makes, below the run's id, and ends itself."""
    ssm: bool = False
    """Reach the machine through Session Manager: no port of it is open to anybody."""
    ingress_cidr: str | None = None
    """Who may reach port 22; `None`: the caller's address, /32."""
    account_id: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    """Refuse to work in any other account."""
    network: Path
    data: str
    """A path or a URL (http, https, file, s3). What is at an s3 URL goes straight to the machine."""
    data_on_machine: bool = False
    """The machine fetches what is at a URL, not the user's computer."""
    data_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    max_interruptions: Annotated[int, Field(ge=0)] = 10
    """How often the run goes on on another machine after AWS took the one it had, within its hours and its money."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How old the last checkpoint is at least when the trainer leaves one after an epoch, and when one comes home."""
    continue_from: Path | None = None
    """Folder of a run whose checkpoint, which came home, is gone on from."""
    project: Path | None = None
    """Folder whose git-tracked and untracked-not-ignored files travel; `None`: nothing of it."""
    output: Path = Path("runs")
    settings: RunSettings = RunSettings()

    @property
    def by_need(self) -> bool:
        """Whether types are chosen by what they have, not by name."""
        return not self.instance_types

    @property
    def markets(self) -> tuple[Market, ...]:
        """How instances may be bought; with `fallback` the first is tried first."""
        if self.market == "cheapest" or self.fallback:
            return (Market.SPOT, Market.ON_DEMAND)
        return (Market(self.market),)

    @property
    def skips_us(self) -> bool:
        """Whether the data goes straight to the machine."""
        return self.data_on_machine or self.data.startswith("s3://")

    def _check_far_data(self) -> None:
        scheme = self.data.partition("://")[0]
        if scheme not in {"http", "https", "s3"}:
            raise ValueError(f"data_on_machine is for data at a URL (https, http or s3), not {self.data}")
        if scheme == "s3" and self.data.endswith("/"):
            raise ValueError(f"data: {self.data} is a folder: name one file, or an archive (zip, tar) of several")
        if scheme != "s3" and self.data_sha256 is None:
            raise ValueError("data_on_machine wants data_sha256: nobody here sees what the machine fetches")

    def _check_alone(self) -> None:
        """What is for one machine only, and what for one that does not end itself."""
        if self.settings.tune_trials and self.nodes > 1:
            raise ValueError("settings.tune_trials is for one machine: those of nodes cannot tune as one")
        if self.bucket is not None and self.nodes > 1:
            raise ValueError("bucket is for one machine: the others of nodes would not end themselves")
        if self.keep_alive_minutes and self.nodes > 1:
            raise ValueError("keep_alive_minutes is for one machine: those of nodes are given back once their run ends")
        if self.keep_alive_minutes and self.bucket is not None:
            raise ValueError("keep_alive_minutes or bucket, not both: a machine whose run is in a bucket ends itself")

    def _check_profile(self) -> None:
        """The machine uses buckets, and is found by Session Manager, by its own rights."""
        wanted: dict[str, str] = {}
        if self.bucket is not None:
            place = BucketUrl.parse(self.bucket)
            wanted["bucket"] = f"Bucket={place.bucket} BucketPrefix={place.prefix}"
        if self.data.startswith("s3://"):
            place = BucketUrl.parse(self.data)
            wanted["data at s3"] = f"DataObjects=arn:aws:s3:::{place.bucket}/{place.prefix}"
        if self.ssm:
            wanted["ssm"] = "SessionManager=true"
        if wanted and self.instance_profile is None:
            raise ValueError(
                f"{' and '.join(wanted)}: the machine needs an instance_profile for that: `aws cloudformation deploy "
                f"--stack-name launch-and-train --region {self.region} --capabilities CAPABILITY_IAM --template-file "
                f"infra/cloudformation/launch-and-train.yaml --parameter-overrides {' '.join(wanted.values())}` "
                "makes one, and tells its name as MachineProfileName"
            )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        needs = self.gpus is not None or self.gpu_memory_gib is not None
        if len(set(self.instance_types)) != len(self.instance_types):
            raise ValueError("instance_types names a type twice")
        if self.instance_types and needs:
            raise ValueError("give instance_types, or gpus and gpu_memory_gib, not both")
        if not self.instance_types and not needs:
            raise ValueError("what to rent is missing: give instance_types, or gpus and gpu_memory_gib")
        if not self.instance_types and self.max_usd is None and self.max_usd_per_hour is None:
            raise ValueError("gpus and gpu_memory_gib may find any type: give max_usd_per_hour or max_usd")
        if self.fallback and self.market != "spot":
            raise ValueError('fallback is for market = "spot" only')
        self._check_alone()
        if self.skips_us:
            self._check_far_data()
        self._check_profile()
        return self


def read_spec(path: Path, overrides: Mapping[str, Any]) -> RunSpec:
    """Parse the TOML at `path` and lay `overrides` over it (keys as in `RunSpec`; settings under
    `settings.NAME`; `None` means not given). Raises `UsageError` with file and key.
    """
    table = _load(path)
    for key in ("network", "project", "output", "continue_from"):
        if isinstance(table.get(key), str):
            table[key] = str((path.parent / table[key]).resolve())
    if isinstance(table.get("data"), str) and "://" not in table["data"]:
        table["data"] = str((path.parent / table["data"]).resolve())
    given = {key: value for key, value in overrides.items() if value is not None}
    _forget_the_other_way(table, given)
    for key, value in given.items():
        _lay_over(table, key, value)
    try:
        return RunSpec.model_validate(table)
    except ValidationError as error:
        raise UsageError(_first_problem(error, path, given)) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the run spec: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def _forget_the_other_way(table: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Types named on the command line replace a need in the file, and the other way round."""
    if "instance_types" in given:
        table.pop("gpus", None)
        table.pop("gpu_memory_gib", None)
    elif "gpus" in given or "gpu_memory_gib" in given:
        table.pop("instance_types", None)


def _lay_over(table: dict[str, Any], key: str, value: object) -> None:
    outer, _, inner = key.rpartition(".")
    (table.setdefault(outer, {}) if outer else table)[inner] = value


def _first_problem(error: ValidationError, path: Path, given_here: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "spec"
    if first["type"] == "value_error" and not first["loc"]:
        problem = first["msg"].removeprefix("Value error, ")
        subject = problem.split()[0].rstrip(":,")
        return f"{'command line' if subject in given_here else path}: {problem}"
    source = "command line" if any(where.startswith(key) for key in given_here) else str(path)
    given = "" if first["type"] == "missing" else f" (given: {first['input']!r})"
    return f"{source}: {where}: {first['msg'].removeprefix('Value error, ')}{given}"
