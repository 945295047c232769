"""Verbs that take stock, and the first steps."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import (
    RUNS,
    AsJson,
    Config,
    DryRun,
    MockCloud,
    Output,
    Region,
    answering,
    app,
)


@app.command("ls")
def list_runs(
    cloud: Annotated[bool, typer.Option("--cloud", help="Also what of ours exists in the account, by tag.")] = False,
    region: Region = None,
    mock_cloud: MockCloud = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """List the runs: how they stand by their books, machine, cost, age."""
    from orchestrator.report.books import runs_json, runs_text
    from orchestrator.stock import in_cloud, ledgers
    from orchestrator.worlds import SystemClock, Where

    with answering(as_json) as answer:
        now = SystemClock().now()
        books = ledgers(output or RUNS, now)
        found = in_cloud(region or "us-east-1", Where(mock_cloud=mock_cloud)) if cloud else None
        answer(runs_json(books, now, found), runs_text(books, now, found))


@app.command()
def cost(
    run: Annotated[
        str | None, typer.Argument(help="A run id, or the path of a run folder.", show_default="all")
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Reckon what runs have cost, open ones up to now: an estimate by their ledgers, not AWS's bill."""
    from orchestrator.report.books import costs_json, costs_text
    from orchestrator.stock import ledgers
    from orchestrator.worlds import SystemClock

    with answering(as_json) as answer:
        books = ledgers(output or RUNS, SystemClock().now(), run)
        answer(costs_json(books), costs_text(books))


@app.command()
def doctor(
    config: Config = None,
    region: Region = None,
    dry_run: DryRun = False,
    mock_cloud: MockCloud = None,
    as_json: AsJson = False,
) -> None:
    """Check whether a run could be rented, and say what to mend; nothing changes anywhere."""
    from orchestrator.packaged import packaged
    from orchestrator.report.doctor import findings_json, findings_text
    from orchestrator.spec import read_spec
    from orchestrator.stock import examined
    from orchestrator.worlds import Where

    with answering(as_json) as answer:
        path = config or packaged("configs") / "runs" / "movielens.toml"
        findings = examined(read_spec(path, {"region": region}), Where(dry_run, mock_cloud))
        answer(findings_json(findings), findings_text(findings))
        raise typer.Exit(1 if any(finding.is_bad for finding in findings) else 0)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.", show_default="run.toml")] = Path("run.toml"),
    as_json: AsJson = False,
) -> None:
    """Write a run spec with every key explained, to start from; no file is overwritten."""
    from orchestrator.stock import write_first_spec

    with answering(as_json) as answer:
        write_first_spec(path)
        answer({"path": str(path.resolve())}, f"{path} is written: `launch-and-train --config {path}`")
