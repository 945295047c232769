"""What the doctor found."""

from collections.abc import Sequence
from typing import Any

from orchestrator.doctor import Finding

_MARKS = {"ok": "✓", "note": "–", "bad": "✗"}


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Each finding, and whether none is bad."""
    return {
        "ok": not any(finding.is_bad for finding in findings),
        "findings": [
            {
                "name": finding.name,
                "verdict": finding.verdict,
                "detail": finding.detail,
                "remedy": finding.remedy or None,
            }
            for finding in findings
        ],
    }


def findings_text(findings: Sequence[Finding]) -> str:
    """A line for each, its remedy below where it is not good."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.verdict]} {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"  {'':<{width}}  → {finding.remedy}")
    bad = sum(finding.is_bad for finding in findings)
    lines += ["", f"{bad} to mend" if bad else "nothing to mend"]
    return "\n".join(lines)
