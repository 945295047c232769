"""The one place where botocore's exceptions are translated into ours, by the table of `codes.py`."""

from collections.abc import Generator
from contextlib import contextmanager

from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from orchestrator.aws.codes import reaction_to
from orchestrator.errors import AlreadyGone, CloudUnavailable, CredentialsMissing, PermissionMissing, RunFailed

_LONGEST = 400
_RIGHTS = {"HeadBucket": "ListBucket", "HeadObject": "GetObject", "ListObjectsV2": "ListBucket"}
"""Operations whose right has another name."""
_NOT_LOGGED_IN = (
    CredentialRetrievalError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


@contextmanager
def translated(doing: str, *, service: str = "ec2", missing: type[RunFailed] = AlreadyGone) -> Generator[None]:
    """Turn what AWS and botocore raise inside the block into our errors. `doing` opens the message;
    `missing` is raised for what is not there; `service` is the prefix of the action's name in IAM.
    """
    try:
        yield
    except ClientError as error:
        raise _ours(error, doing, service=service, missing=missing) from error
    except _NOT_LOGGED_IN as error:
        raise CredentialsMissing(f"{doing}: {error}; log in, say with `aws sso login`") from error
    except (HTTPClientError, IncompleteReadError, NoConnection) as error:
        raise CloudUnavailable(f"{doing}: AWS cannot be reached: {error}") from error
    except ResponseParserError as error:
        raise CloudUnavailable(f"{doing}: AWS's answer cannot be read: {_short(str(error))}") from error


def _ours(error: ClientError, doing: str, *, service: str, missing: type[RunFailed]) -> RunFailed:
    details = error.response.get("Error", {})
    code, message = details.get("Code", ""), _short(details.get("Message", ""))
    reaction = reaction_to(code, status=error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    kind, advice = reaction.error or missing, reaction.advice
    if kind is PermissionMissing:
        action = _RIGHTS.get(error.operation_name, error.operation_name)
        advice = f"the caller's policy must allow {service}:{action} ({advice})"
    return kind(f"{doing}: {code}: {message}{f'; {advice}' if advice else ''}")


def _short(text: str) -> str:
    """One line, without the page-long token that explains a refusal to machines only."""
    line = " ".join(text.partition("Encoded authorization failure message")[0].split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
