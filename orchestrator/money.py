"""What renting costs, and what it has cost: pure sums in `Decimal` USD."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Decimal

GP3_USD_PER_GIB_MONTH = Decimal("0.08")
"""Dated guess (2026-08), shown as a part of every estimate; the hourly price is read live."""
IPV4_USD_PER_HOUR = Decimal("0.005")
_HOURS_PER_MONTH = Decimal(730)
_LEAST_SECONDS = 60
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Bill:
    """Billed machine time and its estimated price."""

    hours: float
    usd: Decimal


def rent_usd(usd_per_hour: Decimal, *, volume_gib: int, hours: Decimal) -> Decimal:
    """Instance, gp3 root volume and public address for `hours`, rounded up to the cent."""
    volume = GP3_USD_PER_GIB_MONTH * volume_gib / _HOURS_PER_MONTH
    return ((usd_per_hour + volume + IPV4_USD_PER_HOUR) * hours).quantize(_CENT, ROUND_UP)


def bill(usd_per_hour: Decimal, *, volume_gib: int, launched_at: datetime, ended_at: datetime) -> Bill:
    """What an instance that ran from `launched_at` to `ended_at` costs: by the second, a minute at
    least.
    """
    seconds = max(_LEAST_SECONDS, (ended_at - launched_at).total_seconds())
    hours = Decimal(str(seconds)) / 3600
    return Bill(float(hours), rent_usd(usd_per_hour, volume_gib=volume_gib, hours=hours))
