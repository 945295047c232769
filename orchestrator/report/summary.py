"""A run in Markdown, for the page of a CI job: how it ended, what it measured and cost, what is left, and the plan.
Account numbers stay out of it, since such pages are often public.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.events import Outcome
from orchestrator.record import PLAN_FILE, read_record, remember_outcome
from orchestrator.report.outcome import cost_text, ending_text, measured, outcome_json
from orchestrator.report.units import bytes_text, seconds_text

SUMMARY_FILE = "summary.md"
_ENDINGS = {0: "done", 130: "interrupted"}


def close_books(folder: Path, outcome: Outcome) -> None:
    """Enter how a run ended into its record, and write `summary.md` beside it."""
    remember_outcome(folder, outcome_json(outcome))
    plan = folder / PLAN_FILE
    text = plan.read_text(encoding="utf-8").rstrip("\n") if plan.exists() else "the plan was not kept"
    written = summary_markdown(text, outcome, account_id=read_record(folder).account_id)
    (folder / SUMMARY_FILE).write_text(written, encoding="utf-8")


def summary_markdown(plan: str, outcome: Outcome, *, account_id: str) -> str:
    """`summary.md` of a run folder, with the text of its plan; ends with a line feed."""
    ending = _ENDINGS.get(outcome.exit_status, "failed")
    names, models = measured(outcome.metrics)
    facts = (f"cost: {cost_text(outcome)}", *ending_text(outcome).splitlines())
    parts = [
        f"## {outcome.run_id}: {ending}",
        *([_fenced(outcome.error)] if outcome.error else []),
        "\n".join(f"- {' '.join(fact.split())}" for fact in facts),
    ]
    if models:
        rows = ((model, *(f"{value:.4f}" for value in values)) for model, values in models.items())
        parts.append(_table(("held-out items", *names), rows))
    if outcome.artifacts:
        rows = ((f"`{artifact.name}`", bytes_text(artifact.size)) for artifact in outcome.artifacts)
        parts.append(_table(("artifact", "size"), rows))
    rows = ((stage.name.value, seconds_text(stage.seconds)) for stage in outcome.stages)
    parts.append(_table(("stage", "time"), rows))
    parts.append(f"<details><summary>Plan</summary>\n\n{_fenced(plan)}\n\n</details>\n")
    return "\n\n".join(parts).replace(account_id, "ACCOUNT")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str) -> str:
    # A fence is closed only by one as long.
    fence = "````"
    return f"{fence}text\n{text}\n{fence}"
