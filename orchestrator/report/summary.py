"""A run in Markdown, for the page of a CI job: how it ended, what it measured and cost, what is left, and the plan.
Account numbers stay out of it, since such pages are often public.
"""

from collections.abc import Iterable, Sequence

from orchestrator.events import Outcome
from orchestrator.inputs import InputSummary
from orchestrator.plan import Plan
from orchestrator.report.outcome import cost_text, ending_text, measured
from orchestrator.report.plan import plan_text
from orchestrator.report.units import bytes_text, seconds_text

_ENDINGS = {0: "done", 130: "interrupted"}


def summary_markdown(plan: Plan, inputs: InputSummary, outcome: Outcome) -> str:
    """`summary.md` of a run folder; ends with a line feed."""
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
    parts.append(f"<details><summary>Plan</summary>\n\n{_fenced(plan_text(plan, inputs))}\n\n</details>\n")
    return "\n\n".join(parts).replace(plan.account.account_id, "ACCOUNT")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str) -> str:
    # A fence is closed only by one as long.
    fence = "````"
    return f"{fence}text\n{text}\n{fence}"
