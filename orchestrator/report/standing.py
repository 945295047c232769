"""How a run stands, and what to do with one that was left alone."""

from typing import Any

from orchestrator.events import Outcome, Standing
from orchestrator.report.progress import progress_text
from orchestrator.report.units import seconds_text


def standing_json(standing: Standing) -> dict[str, Any]:
    """Plain values; what is not known is null."""
    done = standing.progress
    return {
        "run_id": standing.run_id,
        "state": standing.state,
        "note": standing.note or None,
        "machine": standing.machine or None,
        "others": list(standing.others),
        "epoch": done.done if done else None,
        "epochs": done.total if done else None,
        "loss": done.loss if done else None,
        "samples_per_second": done.samples_per_second if done else None,
        "seconds_left": done.seconds_left if done else None,
        "trainer_exit_status": standing.exit_status,
        "hours": round(standing.hours, 4),
        "usd": float(standing.usd),
        "usd_at_most": float(standing.usd_at_most),
        "minutes_to_timer": standing.minutes_to_timer,
    }


def standing_text(standing: Standing) -> str:
    """One line a fact."""
    rows = [("run", standing.run_id), ("state", standing.state)]
    if standing.progress:
        rows.append(("progress", progress_text(standing.progress)))
    if standing.machine:
        rows.append(("machine", standing.machine))
        rows += [(f"node {number}", other) for number, other in enumerate(standing.others, 1)]
        rows.append(("cost", f"{standing.usd} USD so far, {standing.usd_at_most} USD if only the timer ends it"))
    if standing.minutes_to_timer is not None:
        left = standing.minutes_to_timer * 60
        rows.append(("timer", f"ends the machine in {seconds_text(left)}" if left > 0 else "its time is over"))
    if standing.note:
        rows.append(("note", standing.note))
    return "\n".join(f"{label:<10}{text}" for label, text in rows)


def detached_text(outcome: Outcome) -> str:
    """How to come back to a run that was left alone."""
    run, until = outcome.run_id, outcome.left_until
    lost = "with all that was not brought home"
    if outcome.kept_in:
        lost = f"if it has not before: once all it makes is in {outcome.kept_in}"
    lines = [
        f"run {run} trains on without you; at {until:%H:%M} UTC its machine ends itself, {lost}",
        f"  orchestrator status {run}     how far it is, and what it costs",
        f"  orchestrator logs -f {run}    what the trainer says",
        f"  orchestrator attach {run}     wait, bring the results home, give everything back",
        f"  orchestrator fetch {run}      bring the results home, keep the machine",
        f"  orchestrator down {run}       give everything back now",
        f"From elsewhere, take {outcome.directory} along: it holds the key.",
    ]
    return "\n".join(lines)
