"""The command line: parses, calls, prints and gives the exit status. It decides nothing; a verb's modules
are imported when the verb is called, so that help answers at once and `check` runs without JAX.
"""

import signal

from trainer.cli import data, measuring, training, tuning
from trainer.cli.options import app

__all__ = ["app", "data", "measuring", "trainer_program", "training", "tuning"]


def trainer_program() -> None:
    """The script `trainer`. Ctrl-C ends it at once, as it does DSSTNE's programs: JAX loses a `KeyboardInterrupt` that
    comes at a bad moment, and files are only ever renamed into place.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    app(prog_name="trainer")
