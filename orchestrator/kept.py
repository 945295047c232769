"""A machine that a run has kept, as the next run's plan sees it: what it can serve, and the facts that a survey would
find if it were all there is.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, Decimal

from orchestrator.errors import UsageError
from orchestrator.fit import Fits
from orchestrator.plan import Facts, Placement
from orchestrator.ports import Clock, CloudReader
from orchestrator.record import MachineRecord
from orchestrator.resources import InstanceType, Market, Offer
from orchestrator.spec import RunSpec

_LEAST_HOURS = Decimal("0.05")
_TEN_THOUSANDTH = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class KeptMachine:
    """The machine, and what of it only the ledger of the run that kept it tells."""

    run_id: str
    region: str
    account_id: str
    machine: MachineRecord
    image_id: str
    market: Market
    vpc_id: str
    ingress_cidr: str
    instance_profile: str | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"the machine of {self.run_id} ({self.machine.instance_id})"

    @property
    def by_ssm(self) -> bool:
        """Whether it is reached through Session Manager."""
        return self.machine.address == self.machine.instance_id

    def asked(self, spec: RunSpec, reader: CloudReader, now: datetime) -> RunSpec:
        """`spec` as this machine can serve it, until its timer. `UsageError` where it cannot."""
        self._refuse_others(spec)
        if spec.by_need:
            for its_type in reader.instance_types((self.machine.instance_type,)):
                _refuse_small(self.name, its_type, spec)
        hours = Decimal((self.machine.ends_at - now).total_seconds()) / 3600
        left = hours.quantize(_TEN_THOUSANDTH, ROUND_DOWN)
        if left < _LEAST_HOURS:
            raise UsageError(f"{self.name}: its timer ends it in {left * 60:.1f} min, too soon for a run")
        changed = {
            "instance_types": (self.machine.instance_type,),
            "gpus": None,
            "gpu_memory_gib": None,
            "market": self.market.value,
            "fallback": False,
            "wait_capacity_minutes": Decimal(0),
            "max_hours": left,
            "image": self.image_id,
            "volume_gib": self.machine.volume_gib,
            "ssm": self.by_ssm,
        }
        return spec.model_copy(update=changed)

    def facts(self, reader: CloudReader, spec: RunSpec, clock: Clock) -> Facts:
        """What a survey would find if this machine were all there is."""
        account = reader.account()
        if account.account_id != self.account_id:
            raise UsageError(
                f"{self.name} is in account {self.account_id}, these credentials are of {account.account_id}"
            )
        image, types = reader.image(spec.image), reader.instance_types(spec.instance_types)
        if image is None or not types:
            raise UsageError(f"{self.name}: {spec.region} no longer knows its image {spec.image} or its type")
        return Facts(
            account=account,
            image=image,
            instance_types=types,
            offers=(self._offer(types[0]),),
            placement=Placement(self.vpc_id, {}),
            ingress_cidr=self.ingress_cidr,
            quota_notes=(),
            leftovers=(),
            observed_at=clock.now(),
            price_notes=(f"the machine that {self.run_id} kept; nothing is rented",),
        )

    def _offer(self, its_type: InstanceType) -> Offer:
        return Offer(
            instance_type=its_type.name,
            zone=self.machine.zone,
            subnet_id="",
            market=self.market,
            usd_per_hour=self.machine.usd_per_hour,
            gpus=its_type.gpus,
            gpu_name=its_type.gpu_name,
            gpu_memory_gib=its_type.gpu_memory_gib,
        )

    def _refuse_others(self, spec: RunSpec) -> None:
        machine, image_id = self.machine, self.image_id
        if spec.nodes > 1:
            raise UsageError(f"{self.name} is one, the run wants nodes = {spec.nodes}")
        if spec.bucket is not None:
            raise UsageError(f"{self.name} would end itself once the run is in a bucket: leave bucket out, or --on")
        if spec.region != self.region:
            raise UsageError(f"{self.name} is in {self.region}, the run is to be in {spec.region}")
        if spec.instance_types and machine.instance_type not in spec.instance_types:
            wanted = ", ".join(spec.instance_types)
            raise UsageError(f"{self.name} is a {machine.instance_type}, the run wants {wanted}")
        if spec.image.startswith("ami-") and spec.image != image_id:
            raise UsageError(f"{self.name} runs image {image_id}, the run wants {spec.image}")
        if spec.instance_profile is not None and spec.instance_profile != self.instance_profile:
            has = self.instance_profile or "none"
            raise UsageError(f"{self.name}: its instance profile is {has}, the run wants {spec.instance_profile}")
        if spec.ssm and not self.by_ssm:
            raise UsageError(f"{self.name} was not rented to be reached through Session Manager: leave ssm out")


def refuse_if_slow(fits: Fits, spec: RunSpec) -> None:
    """`UsageError` if the training takes longer, as far as can be told, than a kept machine has left."""
    seconds = next((fit.training_seconds for fit in fits.offers), None)
    left = float(spec.max_hours) * 3600
    if seconds is not None and seconds > left:
        raise UsageError(
            f"the training takes {seconds / 60:.0f} min at least, the kept machine ends itself in {left / 60:.0f} min: "
            "rent another (without --on)"
        )


def _refuse_small(name: str, its_type: InstanceType, spec: RunSpec) -> None:
    if spec.gpus is not None and its_type.gpus < spec.gpus:
        raise UsageError(f"{name} has {its_type.gpus} GPUs, the run wants {spec.gpus}")
    if spec.gpu_memory_gib is not None and its_type.gpu_memory_gib < spec.gpu_memory_gib:
        raise UsageError(f"{name} has GPUs of {its_type.gpu_memory_gib} GiB, the run wants {spec.gpu_memory_gib}")
