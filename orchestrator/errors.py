"""The orchestrator's errors. A class names the caller's next move; a family its exit status.

OrchestratorError
├── RunFailed                 1   something was tried and did not work
│   ├── NoCapacity            1   AWS has none of this offer: try the next
│   ├── QuotaExceeded         1   the account may not have it: ask AWS for more
│   ├── PermissionMissing     1   a right is missing: ask the account's owner
│   ├── CredentialsMissing    1   not logged in, or the login ended
│   ├── PriceUnknown          1   no price could be read: never rent blind
│   ├── NotYetVisible         1   just created, not seen yet: wait
│   ├── StillInUse            1   something holds it: wait, then delete again
│   ├── AlreadyGone           1   it is not there: count as deleted
│   ├── AlreadyExists         1   a name is taken: adopt it if it is ours
│   ├── CloudUnavailable      1   AWS did not answer or said "later": try again
│   ├── CloudRefused          1   AWS refused the request for a reason of its own
│   ├── InstanceDied          1   the instance ended by itself
│   │   └── TakenBack         1   AWS ended it: rent another and go on there
│   ├── HostUnreachable       1   no line to the machine: dial again
│   ├── HostKeyMismatch       1   another machine answered: stop at once
│   ├── CommandFailed         1   a command on the machine exited non-zero
│   ├── TransferMismatch      1   a file arrived differently from how it left
│   ├── TrainingFailed        1   the trainer itself reported failure
│   ├── OverBudget            1   it would soon cost more than max_usd: bring home what there is
│   └── TimedOut              1   a wait reached its limit
├── UsageError                2   bad option, spec, network, data or name; nothing was rented
├── SurvivorsLeft             3   something may still cost money; outranks 1
└── Interrupted             130   the user stopped the run; it was torn down
"""

from collections.abc import Sequence


class OrchestratorError(Exception):
    """The root: an error the command line prints as one line and turns into `exit_status`."""

    exit_status = 1


class RunFailed(OrchestratorError):
    """Something was tried and did not work."""


class NoCapacity(RunFailed):
    """AWS has none of this instance type in this zone; the next offer may work."""


class QuotaExceeded(RunFailed):
    """The account may not run this many vCPUs of the class."""


class PermissionMissing(RunFailed):
    """The caller's policy lacks an action; the message names it."""


class CredentialsMissing(RunFailed):
    """No AWS credentials were found, or they are wrong or have expired."""


class PriceUnknown(RunFailed):
    """No price could be read for an offer."""


class NotYetVisible(RunFailed):
    """A resource just created is not visible yet."""


class StillInUse(RunFailed):
    """A resource cannot be deleted because another still holds it."""


class AlreadyGone(RunFailed):
    """The resource does not exist (any more)."""


class AlreadyExists(RunFailed):
    """A resource of this name exists."""


class CloudUnavailable(RunFailed):
    """AWS did not answer, throttled, or failed inside; the same request may work later."""


class CloudRefused(RunFailed):
    """AWS refused the request; the message carries its code and reason."""


class InstanceDied(RunFailed):
    """The instance left the state `running` (or never reached it) by itself."""


class TakenBack(InstanceDied):
    """AWS ended the instance, or says that it will: a spot interruption, or a failure of its own."""


class HostUnreachable(RunFailed):
    """No SSH connection could be made, or it broke."""


class HostKeyMismatch(RunFailed):
    """The machine that answered does not hold the pinned host key."""


class CommandFailed(RunFailed):
    """A command on the machine exited with a status other than 0."""


class TransferMismatch(RunFailed):
    """Size or SHA-256 of a file differs between the two ends."""


class TrainingFailed(RunFailed):
    """The trainer wrote a non-zero exit status; the message carries its last words."""


class OverBudget(RunFailed):
    """The machine would soon have cost more than the user allows."""


class TimedOut(RunFailed):
    """A wait reached its limit; the message says what was waited for."""


class UsageError(OrchestratorError):
    """What the user gave cannot be used; nothing was rented."""

    exit_status = 2


class SurvivorsLeft(OrchestratorError):
    """Teardown could not confirm that these resources are gone."""

    exit_status = 3

    def __init__(self, message: str, survivors: Sequence[str]) -> None:
        super().__init__(message)
        self.survivors = tuple(survivors)


class Interrupted(OrchestratorError):
    """The user (or the system) asked the run to stop."""

    exit_status = 130
