"""Verbs for a run whose machine lives."""

import io
import os
import shutil
import sys
from typing import Annotated

import typer

from orchestrator.cli.options import RUNS, AsJson, Node, Output, Run, answering, app, remark

_GOES_ON = "the run goes on"


@app.command()
def status(run: Run, output: Output = None, as_json: AsJson = False) -> None:
    """Show how far a run is, what it costs, and how long its machine may live."""
    from orchestrator.report.standing import standing_json, standing_text
    from orchestrator.standing import stands

    with answering(as_json, interrupted=_GOES_ON) as answer:
        standing = stands(run, output=output or RUNS, say=remark)
        answer(standing_json(standing), standing_text(standing))


@app.command()
def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the training ends.")] = False,
    node: Node = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print what the trainer says on the machine; ending this changes nothing there."""
    from orchestrator.standing import listen

    with answering(as_json, interrupted=_GOES_ON) as answer:
        heard = io.BytesIO()
        to = heard if as_json else sys.stdout.buffer
        listen(run, output=output or RUNS, to=to, on=follow, node=node, say=remark)
        if as_json:
            answer({"log": heard.getvalue().decode(errors="replace")}, "")


@app.command()
def attach(run: Run, output: Output = None, as_json: AsJson = False) -> None:
    """Go on as the command that began the run: follow, fetch, give everything back; Ctrl-C gives back, too."""
    from orchestrator.report.outcome import outcome_json, outcome_text
    from orchestrator.standing import attach as go_on

    with answering(as_json, interrupted=_GOES_ON) as answer:
        outcome = go_on(run, output=output or RUNS, stream=sys.stderr)
        answer(outcome_json(outcome), outcome_text(outcome))
        if outcome.error:
            remark(f"error: {outcome.error}")
        raise typer.Exit(outcome.exit_status)


@app.command()
def fetch(
    run: Run,
    partial: Annotated[bool, typer.Option("--partial", help="While it trains, too: whatever there is by now.")] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Bring the results of a run home and keep its machine."""
    from orchestrator.report.outcome import artifacts_json, artifacts_text
    from orchestrator.standing import bring

    with answering(as_json, interrupted=_GOES_ON) as answer:
        artifacts = bring(run, output=output or RUNS, partial=partial, stream=sys.stderr)
        answer({"artifacts": artifacts_json(artifacts)}, artifacts_text(artifacts))


@app.command()
def ssh(
    run: Run,
    printed: Annotated[bool, typer.Option("--print", help="Print the command, do not run it.")] = False,
    node: Node = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Log in to a machine of a run, with its key and its pinned host key."""
    from orchestrator.standing import ssh_command, ssh_text

    with answering(as_json, interrupted=_GOES_ON) as answer:
        command = ssh_command(run, output=output or RUNS, node=node, say=remark)
        program = shutil.which(command[0])
        if printed or as_json or program is None:
            answer({"command": list(command)}, ssh_text(command))
            return
        os.execv(program, command)  # noqa: S606 - an argument list, no shell
