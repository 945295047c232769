"""The trainer's errors and the exit status of each.

TrainerError                 1   training or writing went wrong
├── NonFiniteError           1   the loss stopped being a number
├── DevicesMissing           1   fewer devices than were promised
├── Interrupted             75   asked to end before it was done: saved, to be begun again
└── InputError               2   what the user gave cannot be used; nothing was computed
    ├── DataError            2   names file and line
    ├── NetworkError         2   names file and JSON path
    └── SettingsError        2   names the setting
"""

from pathlib import Path


class TrainerError(Exception):
    """The root: an error the command line prints as one line and turns into `exit_status`."""

    exit_status = 1


class NonFiniteError(TrainerError):
    """The loss was infinite or not a number somewhere between two reported steps."""

    def __init__(self, first_step: int, last_step: int) -> None:
        super().__init__(
            f"the loss stopped being a finite number between steps {first_step} and {last_step}; "
            "lower the learning rate"
        )
        self.first_step = first_step
        self.last_step = last_step


class DevicesMissing(TrainerError):
    """JAX sees fewer devices than the run was promised."""


class Interrupted(TrainerError):
    """The training was asked to end and has left a checkpoint; begun again, it goes on from there."""

    exit_status = 75
    """The system's own number for "try again later" (EX_TEMPFAIL)."""


class InputError(TrainerError):
    """The root of what only the user can mend."""

    exit_status = 2


class DataError(InputError):
    """A data file that cannot be read; the message opens with `file:line:` where there is one."""

    def __init__(self, message: str, file: Path | str, line: int | None = None) -> None:
        where = f"{file}:{line}" if line is not None else f"{file}"
        super().__init__(f"{where}: {message}")
        self.file = Path(file)
        self.line = line


class NetworkError(InputError):
    """A network that cannot be built; the message opens with `file: JSON path:`."""

    def __init__(self, message: str, path: str, file: Path | str | None = None) -> None:
        where = f"{file}: {path}" if file is not None else path
        super().__init__(f"{where}: {message}")
        self.path = path
        self.file = file


class SettingsError(InputError):
    """A setting outside its range."""
