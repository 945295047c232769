"""The command line: parses, calls, renders and gives the exit status. It decides nothing; a verb's
modules are imported when the verb is called, so that help answers at once.
"""

from orchestrator.cli import renting, standing, stock
from orchestrator.cli.options import app, whole_job

__all__ = ["app", "launch_and_train_program", "orchestrator_program", "renting", "standing", "stock", "whole_job"]


def launch_and_train_program() -> None:
    """The script `launch-and-train`."""
    whole_job(prog_name="launch-and-train")


def orchestrator_program() -> None:
    """The script `orchestrator`."""
    app(prog_name="orchestrator")
