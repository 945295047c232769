"""Runs and what they cost: a table for people, plain values for programs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from orchestrator.books import Books
from orchestrator.report.units import seconds_text
from orchestrator.resources import Tagged


def runs_json(
    books: Sequence[Books], now: datetime, in_cloud: Mapping[str, Sequence[Tagged]] | None = None
) -> dict[str, Any]:
    """Every run; with `in_cloud`, also what of ours exists in the account, by run."""
    runs = [
        {
            "run_id": one.run_id,
            "state": one.state,
            "machine": one.machine or None,
            "usd": float(one.usd) if one.priced else None,
            "age_seconds": round((now - one.began_at).total_seconds()),
            "folder": str(one.folder.resolve()),
        }
        for one in books
    ]
    if in_cloud is None:
        return {"runs": runs}
    cloud = {run_id: [_tagged_json(found) for found in several] for run_id, several in in_cloud.items()}
    return {"runs": runs, "cloud": cloud}


def runs_text(books: Sequence[Books], now: datetime, in_cloud: Mapping[str, Sequence[Tagged]] | None = None) -> str:
    """A line for each run, and for each that only the account knows."""
    rows = [
        (one.run_id, one.state, one.machine, _usd(one), seconds_text((now - one.began_at).total_seconds()))
        for one in books
    ]
    known = {one.run_id for one in books}
    for run_id, several in (in_cloud or {}).items():
        things = ", ".join(f"{found.kind} {found.resource_id}" for found in several)
        rows.append((run_id, "in the cloud" if run_id in known else "in the cloud only", things, "", ""))
    return _table(("run", "state", "machine", "USD", "age"), rows) if rows else "no runs"


def costs_json(books: Sequence[Books]) -> dict[str, Any]:
    """Hours and USD of every run, by what they are paid for, and in all."""
    return {
        "runs": [
            {
                "run_id": one.run_id,
                "hours": round(one.hours, 4),
                "usd": float(one.usd) if one.priced else None,
                "instance_usd": _part(one, "instance_usd"),
                "volume_usd": _part(one, "volume_usd"),
                "address_usd": _part(one, "address_usd"),
                "running": one.running,
            }
            for one in books
        ],
        "usd": float(_total(books)),
    }


def costs_text(books: Sequence[Books]) -> str:
    """A line for each run, and the sum."""
    rows = [
        (
            one.run_id,
            f"{one.hours:.3f}",
            *(f"{_part(one, part):.4f}" for part in ("instance_usd", "volume_usd", "address_usd")),
            _usd(one) + (" so far" if one.running else ""),
        )
        for one in books
    ]
    if len(rows) != 1:
        rows.append(("in all", f"{sum(one.hours for one in books):.3f}", "", "", "", str(_total(books))))
    return _table(("run", "hours", "instance", "volume", "address", "USD"), rows)


def _tagged_json(found: Tagged) -> dict[str, Any]:
    return {
        "kind": found.kind.value,
        "id": found.resource_id,
        "state": found.state,
        "region": found.region,
        "expires_at": found.expires_at.isoformat() if found.expires_at else None,
    }


def _usd(one: Books) -> str:
    return str(one.usd) if one.priced else "not known"


def _part(one: Books, name: str) -> float:
    return float(sum((getattr(bill, name) for bill in one.bills), Decimal(0)))


def _total(books: Sequence[Books]) -> Decimal:
    return sum((one.usd for one in books), Decimal(0))


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in (header, *rows))
    return "\n".join(line.rstrip() for line in lines)
