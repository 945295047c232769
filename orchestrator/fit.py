"""Whether a training fits the GPUs on offer, and what it costs there at least. Pure: from what `trainer capacity`
answered, which knows no prices, and the offers, which know no networks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_UP, Decimal

from pydantic import BaseModel, ConfigDict

from orchestrator.errors import UsageError
from orchestrator.resources import Offer

LEFT_OUT = (
    "boot, Python environment, upload and download",
    "reading the data, compiling, measuring and recommending",
    "volume and public address; a minute is billed at least",
)
"""What the times and prices here do not hold."""
AROUND_SECONDS = 600.0
"""Boot, environment and transfers, by assumption, where offers are put in order: a machine that trains in a second is
not therefore the cheapest.
"""
GIB = 2**30
_MILLIONTH = Decimal("0.000001")
_TYPES: Sequence[tuple[str, str, int]] = (
    ("g4dn.xlarge", "T4", 1),
    ("g4dn.12xlarge", "T4", 4),
    ("g4dn.metal", "T4", 8),
    ("g5.xlarge", "A10G", 1),
    ("g5.12xlarge", "A10G", 4),
    ("g5.48xlarge", "A10G", 8),
    ("g6.xlarge", "L4", 1),
    ("g6.12xlarge", "L4", 4),
    ("g6.48xlarge", "L4", 8),
    ("g6e.xlarge", "L40S", 1),
    ("g6e.12xlarge", "L40S", 4),
    ("g6e.48xlarge", "L40S", 8),
    ("p4d.24xlarge", "A100-40", 8),
    ("p4de.24xlarge", "A100-80", 8),
    ("p5.4xlarge", "H100", 1),
    ("p5.48xlarge", "H100", 8),
)
"""Of each family the least type with so many GPUs, the kind by its name in `trainer capacity`
(https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html).
"""


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True)


class DeviceBytes(_Lenient):
    """Bytes of one GPU while a step runs."""

    total: int


class GpuAnswer(_Lenient):
    """One kind of GPU: whether as many as were asked for hold the training, and how long an epoch takes at least."""

    gpu: str
    holds: bool
    fewest: int | None
    epoch_seconds: float
    bound: str


class Need(_Lenient):
    """What `trainer capacity --json` answers for a number of GPUs. Read leniently: it may tell more."""

    devices: int
    bytes_per_device: DeviceBytes
    gpus: tuple[GpuAnswer, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """The answers by number of GPUs of all machines together, or why there is none."""

    by_gpus: Mapping[int, Need] = field(default_factory=dict[int, Need])
    unknown: str = ""


NOT_ASKED = Needs(unknown="not asked for")


@dataclass(frozen=True, slots=True)
class OfferFit:
    """What the training needs and takes on an offer. `holds` and the rest are `None` for kinds of GPU that the trainer
    does not know, unless it needs more than there is.
    """

    offer: Offer
    bytes_per_gpu: int
    holds: bool | None
    epochs: int | None
    epoch_seconds: float | None
    bound: str | None
    nodes: int = 1
    """Machines of the offer that train as one."""

    @property
    def training_seconds(self) -> float | None:
        """All the epochs."""
        if self.epoch_seconds is None or self.epochs is None:
            return None
        return self.epoch_seconds * self.epochs

    @property
    def epoch_usd(self) -> Decimal | None:
        """The price of all instances for an epoch, rounded up to a millionth."""
        return self._usd(self.epoch_seconds)

    @property
    def training_usd(self) -> Decimal | None:
        """The price of all instances for all the epochs, rounded up to a millionth."""
        return self._usd(self.training_seconds)

    @property
    def run_usd(self) -> Decimal | None:
        """What offers are compared by: the price of all instances for all the epochs and `AROUND_SECONDS`."""
        return self._usd(None if self.training_seconds is None else self.training_seconds + AROUND_SECONDS)

    def _usd(self, seconds: float | None) -> Decimal | None:
        if seconds is None:
            return None
        hourly = self.offer.usd_per_hour * self.nodes
        return (hourly * Decimal(str(seconds)) / 3600).quantize(_MILLIONTH, ROUND_UP)


@dataclass(frozen=True, slots=True)
class SmallestType:
    """The smallest type of a family that holds the training; its price, of each, where it is on offer."""

    name: str
    gpu: str
    gpus: int
    usd_per_hour: Decimal | None
    nodes: int = 1

    @property
    def text(self) -> str:
        """`g6.12xlarge`, `2 × g6.12xlarge`."""
        return f"{self.nodes} × {self.name}" if self.nodes > 1 else self.name


@dataclass(frozen=True, slots=True)
class Fits:
    """The fit of every offer surveyed, of those too that the plan leaves out; or why nothing is known."""

    offers: tuple[OfferFit, ...] = ()
    smallest: tuple[SmallestType, ...] = ()
    assumptions: tuple[str, ...] = ()
    unknown: str = ""

    @property
    def by_type(self) -> tuple[OfferFit, ...]:
        """One fit an instance type: the first, which is the cheapest where offers are in a plan's order."""
        return tuple({one.offer.instance_type: one for one in reversed(self.offers)}.values())[::-1]


def fits_of(offers: Sequence[Offer], needs: Needs, *, epochs: int | None, nodes: int = 1) -> Fits:
    """Hold the offers, each of so many machines, against the needs."""
    if needs.unknown:
        return Fits(unknown=needs.unknown)
    answers = tuple(needs.by_gpus.values())
    return Fits(
        offers=tuple(_fit(offer, needs.by_gpus[offer.gpus * nodes], epochs, nodes) for offer in offers),
        smallest=tuple(_smallest(answers, offers, nodes)),
        assumptions=answers[0].assumptions if answers else (),
    )


def holding(offers: Sequence[Offer], fits: Fits, *, must_fit: bool) -> tuple[Offer, ...]:
    """The offers whose GPUs hold the training, as far as is known; all of them unless it must fit. `UsageError` where
    none is left.
    """
    small = {one.offer.instance_type for one in fits.offers if one.holds is False}
    kept = tuple(offer for offer in offers if not must_fit or offer.instance_type not in small)
    if not kept:
        misfits = ", ".join(misfit_text(one) for one in fits.by_type)
        names = ", ".join(one.text for one in fits.smallest)
        way = f"choose one that holds it, the smallest are {names}" if names else "no type known here holds it"
        raise UsageError(
            f"the training does not fit: {misfits}; {way}; or set must_fit = false (--no-must-fit) to rent all the same"
        )
    return kept


def fit_notes(fits: Fits, *, must_fit: bool, max_hours: Decimal, first: str) -> list[str]:
    """What to tell of types that are too small, and of a training longer than the machine lives."""
    verdict = "left out" if must_fit else "may run out of memory"
    notes = [f"{verdict}: {misfit_text(one)}" for one in fits.by_type if one.holds is False]
    seconds = {one.offer.instance_type: one.training_seconds for one in fits.by_type}.get(first)
    if seconds is not None and seconds > float(max_hours) * 3600:
        notes.append(
            f"the training alone takes {seconds / 3600:,.1f} h at least on {first}, "
            f"yet the machine ends itself after {max_hours.normalize():f} h"
        )
    return notes


def misfit_text(fit: OfferFit) -> str:
    """What is needed and what there is."""
    offer = fit.offer
    return (
        f"{offer.instance_type} would need {fit.bytes_per_gpu / GIB:,.1f} GiB usable on each GPU "
        f"and has {offer.gpus * fit.nodes} × {offer.gpu_name} of {offer.gpu_memory_gib:,.1f} GiB"
        + (f" in {fit.nodes} machines" if fit.nodes > 1 else "")
    )


def _fit(offer: Offer, need: Need, epochs: int | None, nodes: int) -> OfferFit:
    names = (offer.gpu_name, f"{offer.gpu_name}-{offer.gpu_memory_gib:.0f}")
    known = next((answer for answer in need.gpus if answer.gpu in names), None)
    needed = need.bytes_per_device.total
    beyond = False if needed > offer.gpu_memory_gib * GIB else None
    return OfferFit(
        offer=offer,
        bytes_per_gpu=needed,
        holds=known.holds if known else beyond,
        epochs=epochs,
        epoch_seconds=known.epoch_seconds if known else None,
        bound=known.bound if known else None,
        nodes=nodes,
    )


def _smallest(answers: Sequence[Need], offers: Sequence[Offer], nodes: int) -> Iterable[SmallestType]:
    """One type a kind of GPU, in the order of families, of which so many machines are enough."""
    fewest: dict[str, int] = {}
    for told in (told for answer in answers for told in answer.gpus):
        if told.fewest is not None:
            fewest[told.gpu] = min(told.fewest, fewest.get(told.gpu, told.fewest))
    prices: dict[str, Decimal] = {}
    for offer in offers:
        prices[offer.instance_type] = min(offer.usd_per_hour, prices.get(offer.instance_type, offer.usd_per_hour))
    for kind in dict.fromkeys(kind for _, kind, _ in _TYPES if kind in fewest):
        enough = ((name, gpus) for name, gpu, gpus in _TYPES if gpu == kind and gpus * nodes >= fewest[kind])
        for name, gpus in list(enough)[:1]:
            yield SmallestType(name, kind, gpus, prices.get(name), nodes)
