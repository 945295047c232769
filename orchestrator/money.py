"""What renting costs, and what it has cost: pure sums in `Decimal` USD."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal

GP3_USD_PER_GIB_MONTH = Decimal("0.08")
"""Dated guess (2026-08), shown as a part of every estimate; the hourly price is read live."""
IPV4_USD_PER_HOUR = Decimal("0.005")
_HOURS_PER_MONTH = Decimal(730)
_LEAST_SECONDS = 60
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Bill:
    """Billed machine time and its estimated price: in all, rounded up to the cent, and its exact parts."""

    hours: float
    usd: Decimal
    instance_usd: Decimal = Decimal(0)
    volume_usd: Decimal = Decimal(0)
    address_usd: Decimal = Decimal(0)


NOTHING = Bill(0.0, Decimal(0))


def rent_usd(usd_per_hour: Decimal, *, volume_gib: int, hours: Decimal, machines: int = 1) -> Decimal:
    """Instance, gp3 root volume and public address for `hours`, a minute at least, rounded up to the cent; of so many
    machines, of which each costs `usd_per_hour`.
    """
    least = Decimal(_LEAST_SECONDS) / 3600
    return _bill(usd_per_hour, volume_gib=volume_gib, hours=machines * max(hours, least)).usd


def usd_per_hour(instance_usd: Decimal, *, volume_gib: int) -> Decimal:
    """What an hour costs with volume and address, not rounded."""
    of_hour = _bill(instance_usd, volume_gib=volume_gib, hours=Decimal(1))
    return of_hour.instance_usd + of_hour.volume_usd + of_hour.address_usd


def bill(
    usd_per_hour: Decimal, *, volume_gib: int, launched_at: datetime, ended_at: datetime, machines: int = 1
) -> Bill:
    """What instances that ran from `launched_at` to `ended_at` cost: by the second, a minute at least, each."""
    seconds = machines * max(_LEAST_SECONDS, (ended_at - launched_at).total_seconds())
    return _bill(usd_per_hour, volume_gib=volume_gib, hours=Decimal(str(seconds)) / 3600)


@dataclass(frozen=True, slots=True)
class Meter:
    """What runs at which price each since when; `ends_at` is when its timer rings; `before` is what the run's earlier
    machines have cost.
    """

    usd_per_hour: Decimal
    volume_gib: int
    launched_at: datetime
    ends_at: datetime
    machines: int = 1
    before: Bill = NOTHING

    def until(self, moment: datetime) -> Bill:
        """What it has cost by `moment`."""
        own = bill(
            self.usd_per_hour,
            volume_gib=self.volume_gib,
            launched_at=self.launched_at,
            ended_at=moment,
            machines=self.machines,
        )
        return replace(own, hours=self.before.hours + own.hours, usd=self.before.usd + own.usd)

    def at_most(self) -> Bill:
        """What it costs if nothing but its timer ends it."""
        return self.until(self.ends_at)

    def passes(self, cap_usd: Decimal, now: datetime, *, ahead_seconds: float) -> bool:
        """Whether it would have cost more than `cap_usd` so many seconds from now."""
        return self.until(now + timedelta(seconds=ahead_seconds)).usd > cap_usd


def _bill(usd_per_hour: Decimal, *, volume_gib: int, hours: Decimal) -> Bill:
    instance = usd_per_hour * hours
    volume = GP3_USD_PER_GIB_MONTH * volume_gib / _HOURS_PER_MONTH * hours
    address = IPV4_USD_PER_HOUR * hours
    return Bill(float(hours), (instance + volume + address).quantize(_CENT, ROUND_UP), instance, volume, address)
