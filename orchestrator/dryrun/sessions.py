"""Session Manager of the rehearsed account, which moto does not play: it knows the machines that have a profile."""

from orchestrator.dryrun.estate import Estate
from orchestrator.dryrun.wire import Answer, Call, Refusal, json_answer


def answer_session(call: Call, estate: Estate, endpoint: str) -> Answer | None:
    """The answer to StartSession, which names the machine to `plugin.py`; `None` for other calls. Raises `Refusal`."""
    if (call.service, call.action) != ("ssm", "StartSession"):
        return None
    target = str(call.document.get("Target", ""))
    launch = estate.at(target)
    if launch is None or launch.machine is None or launch.machine.port is None:
        raise Refusal("TargetNotConnected", f"{target} is not connected.")
    return json_answer(
        {
            "SessionId": f"dry-run-{target}",
            "TokenValue": "dry-run",
            "StreamUrl": f"{endpoint.replace('http', 'ws')}/v1/data-channel/{target}",
        }
    )
