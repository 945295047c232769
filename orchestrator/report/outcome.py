"""How a run ended: for people where `recs` is, the first recommendations with titles, the cost and what
was given back; for programs one dictionary.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.events import Artifact, Outcome, StageTime, TeardownReport
from orchestrator.report.units import bytes_text, seconds_text

_SAMPLES_SHOWN = 3
_ITEMS_SHOWN = 5
_TITLE_WIDTH = 46


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The keys that `--json` promises."""
    return {
        "run_id": outcome.run_id,
        "exit_status": outcome.exit_status,
        "error": outcome.error,
        "detached": outcome.detached,
        "left_until": outcome.left_until.isoformat() if outcome.left_until else None,
        "kept_until": outcome.kept_until.isoformat() if outcome.kept_until else None,
        "kept_in": outcome.kept_in,
        "artifacts": artifacts_json(outcome.artifacts),
        "metrics": dict(outcome.metrics),
        "machines": outcome.machines,
        "hours": round(outcome.hours, 4),
        "estimated_usd": float(outcome.estimated_usd),
        "stages": _stages_json(outcome.stages),
        "teardown": teardown_json(outcome.teardown),
    }


def artifacts_json(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Path, size and SHA-256 of each, by its name."""
    return {artifact.name: _artifact_json(artifact) for artifact in artifacts}


def artifacts_text(artifacts: Sequence[Artifact]) -> str:
    """One line each."""
    return "\n".join(_artifact_line(artifact) for artifact in artifacts)


def teardown_json(report: TeardownReport) -> dict[str, list[str]]:
    """What became of every resource."""
    return {
        "deleted": list(report.deleted),
        "already_gone": list(report.already_gone),
        "survivors": list(report.survivors),
    }


def outcome_text(outcome: Outcome) -> str:
    """The closing page."""
    artifacts = {artifact.name: artifact for artifact in outcome.artifacts}
    lines: list[str] = []
    if "recs" in artifacts:
        lines += _recommendation_lines(artifacts)
    lines += _metric_lines(outcome.metrics)
    lines += [artifacts_text(outcome.artifacts)] if outcome.artifacts else []
    lines += ["", *_closing_lines(outcome)]
    return "\n".join(lines)


def cost_text(outcome: Outcome) -> str:
    """`0.02 USD for 1.0 min of machine time`, and on how many machines, where AWS took some back."""
    of = f" on {outcome.machines} machines" if outcome.machines > 1 else ""
    return f"{outcome.estimated_usd} USD for {outcome.hours * 60:.1f} min of machine time{of}"


def measured(metrics: Mapping[str, float]) -> tuple[tuple[str, ...], dict[str, tuple[float, ...]]]:
    """What was measured on held-out items, and the values of the network and of popularity, if the run measured
    both; nothing where none was held out.
    """
    names = tuple(sorted(name.removeprefix("network.") for name in metrics if name.startswith("network.")))
    return names, {
        model: tuple(metrics[f"{model}.{name}"] for name in names)
        for model in ("network", "popularity")
        if names and all(f"{model}.{name}" in metrics for name in names)
    }


def teardown_text(report: TeardownReport) -> str:
    """`given back  instance i-…, key pair …` and `survivors: none`."""
    lines = [f"given back  {', '.join(report.deleted) or 'nothing was there'}"]
    if report.already_gone:
        lines.append(f"already gone  {', '.join(report.already_gone)}")
    lines.append(f"survivors: {', '.join(report.survivors) or 'none'}")
    return "\n".join(lines)


def _stages_json(stages: Sequence[StageTime]) -> list[dict[str, Any]]:
    """In the order in which they began, `at_seconds` after the first: two may have gone on at once."""
    first = min((stage.began for stage in stages if stage.began is not None), default=None)
    found: list[dict[str, Any]] = []
    for stage in stages:
        found.append({"name": stage.name.value, "seconds": round(stage.seconds, 3)})
        if stage.began is not None and first is not None:
            found[-1]["at_seconds"] = round((stage.began - first).total_seconds(), 3)
    return sorted(found, key=lambda stage: stage.get("at_seconds", 0.0))


def ending_text(outcome: Outcome) -> str:
    """What became of the machine."""
    if outcome.kept_until is None:
        return teardown_text(outcome.teardown)
    run = outcome.run_id
    return (
        f"kept        until {outcome.kept_until:%H:%M} UTC, when the machine ends itself; it costs on until then\n"
        f"next        `launch-and-train --on {run}` uses it again, `orchestrator down {run}` ends it now"
    )


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return {"path": str(artifact.path.resolve()), "bytes": artifact.size, "sha256": artifact.sha256}


def _artifact_line(artifact: Artifact) -> str:
    return f"  {artifact.name:<16} {bytes_text(artifact.size):>9}  {artifact.path}"


def _recommendation_lines(artifacts: Mapping[str, Artifact]) -> list[str]:
    titles: dict[str, str] = {}
    if "titles.json" in artifacts:
        titles = json.loads(artifacts["titles.json"].path.read_text(encoding="utf-8"))
    lines = ["Recommendations", ""]
    with artifacts["recs"].path.open(encoding="utf-8") as recs:
        for line, _ in zip(recs, range(_SAMPLES_SHOWN), strict=False):
            sample, _, items = line.rstrip("\n").partition("\t")
            lines.append(f"  {sample}")
            lines += [_item_line(item, titles) for item in items.split(":")[:_ITEMS_SHOWN] if item]
            lines.append("")
    return lines


def _item_line(item: str, titles: Mapping[str, str]) -> str:
    feature, _, score = item.rpartition(",")
    title = titles.get(feature, feature)
    shown = title if len(title) <= _TITLE_WIDTH else title[: _TITLE_WIDTH - 1] + "…"
    return f"    {score:>8}  {shown:<{_TITLE_WIDTH}} {feature}".rstrip()


def _metric_lines(metrics: Mapping[str, float]) -> list[str]:
    """A table of the network beside popularity, if the run measured both."""
    names, models = measured(metrics)
    if not names:
        return []
    header = f"  {'held-out items':<16}" + "".join(f"{name:>15}" for name in names)
    rows = [f"  {model:<16}" + "".join(f"{value:>15.4f}" for value in values) for model, values in models.items()]
    return [header, *rows, ""]


def _closing_lines(outcome: Outcome) -> list[str]:
    took = seconds_text(outcome.seconds)
    lines = [
        f"run         {outcome.run_id}, {took}",
        f"cost        {cost_text(outcome)}",
    ]
    return [*lines, *ending_text(outcome).splitlines()]
