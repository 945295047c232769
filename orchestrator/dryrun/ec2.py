"""EC2 as the mock answers it: what moto lacks is answered here, what moto does loosely is checked before
and put right after. `before` may answer in moto's stead, `after` sees what moto answered.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from orchestrator.dryrun.catalog import ROOT_DEVICE, shelf_image, spot_usd
from orchestrator.dryrun.checks import Wanted, check_launch, zones_of
from orchestrator.dryrun.estate import Estate, Launch, TokenUse
from orchestrator.dryrun.placement import tags_of
from orchestrator.dryrun.wire import Answer, Call, Refusal, xml_answer

_USER_ENDED = "Client.UserInitiatedShutdown"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with a call: answer at once, or let moto have `form` and then call `after`."""

    answer: Answer | None = None
    form: Mapping[str, str] | None = None
    after: Callable[[Answer], Answer] | None = None


def begin(call: Call, estate: Estate) -> Step:
    """The step for an EC2 call. Raises `Refusal`."""
    estate.backend(call.region)
    rule = _RULES.get(call.action)
    return rule(call, estate) if rule is not None else Step()


def _run_instances(call: Call, estate: Estate) -> Step:
    token, digest = call.form.get("ClientToken", ""), _digest(call)
    if not call.dry_run and token in estate.tokens:
        return Step(answer=_again(estate.tokens[token], digest))
    wanted = check_launch(call, estate)
    if call.dry_run:
        return Step()
    if name := call.form.get("IamInstanceProfile.Name"):
        estate.have_profile(name)
    return Step(after=lambda answer: _launched(call, estate, wanted, answer))


def _launched(call: Call, estate: Estate, wanted: Wanted, answer: Answer) -> Answer:
    made: list[Launch] = []
    for instance_id in _instance_ids(answer):
        instance = estate.backend(call.region).get_instance(instance_id)
        _put_interfaces_right(call, instance)
        _put_volumes_right(call, instance)
        made.append(estate.add(call.region, instance, wanted, number=len(made)))
        made[-1].has_profile = "IamInstanceProfile.Name" in call.form
    if not made:
        return answer
    answer = Answer(answer.status, answer.content_type, _without_addresses(answer.body))
    if token := call.form.get("ClientToken"):
        estate.tokens[token] = TokenUse(_digest(call), answer, tuple(made))
    return answer


def _put_interfaces_right(call: Call, instance: Any) -> None:
    """Tags that moto forgets; and interfaces made by a launch go with it unless it says otherwise."""
    asked = {group.get("DeviceIndex", "0"): group for group in call.groups("NetworkInterface")}
    for index, nic in instance.nics.items():
        given = asked.get(str(index), {})
        if "NetworkInterfaceId" not in given:
            nic.delete_on_termination = given.get("DeleteOnTermination") != "false"
        for specification in call.groups("TagSpecification"):
            if specification.get("ResourceType") == "network-interface":
                nic.add_tags(tags_of(specification))


def _put_volumes_right(call: Call, instance: Any) -> None:
    """The root volume: as large as its image unless it says otherwise, and it goes with the instance."""
    image = shelf_image(instance.image_id, call.region)
    root = instance.block_device_mapping.get(ROOT_DEVICE)
    if image is None or root is None:
        return
    mappings = (group for group in call.groups("BlockDeviceMapping") if group.get("DeviceName") == ROOT_DEVICE)
    given = next(mappings, {})
    root.delete_on_termination = given.get("Ebs.DeleteOnTermination") != "false"
    if "Ebs.VolumeSize" not in given:
        instance.ec2_backend.volumes[root.volume_id].size = image.root_gib


def _again(use: TokenUse, digest: str) -> Answer:
    if use.digest != digest:
        raise Refusal(
            "IdempotentParameterMismatch",
            "The client token was used before with other parameters.",
        )
    if all(launch.state in {"shutting-down", "terminated"} for launch in use.launches):
        raise Refusal("IdempotentInstanceTerminated", "The instance of this client token is terminated.")
    return use.answer


def _terminate(call: Call, estate: Estate) -> Step:
    if call.dry_run:
        return Step()
    ended = {launch.instance.id: launch for launch in _launches(call, estate) if not launch.holding}
    asked = call.values("InstanceId")
    if asked and all(instance_id in ended for instance_id in asked):
        # Moto stumbles over the network interface that went with the instance.
        return Step(answer=xml_answer(call.action, f"<instancesSet>{_same_states(ended)}</instancesSet>"))
    return Step(after=lambda answer: _ended(call, estate, answer))


def _same_states(ended: Mapping[str, Launch]) -> str:
    items: list[str] = []
    for instance_id, launch in ended.items():
        state = f"<code>{launch.code}</code><name>{launch.state}</name>"
        items.append(
            f"<item><instanceId>{instance_id}</instanceId>"
            f"<currentState>{state}</currentState><previousState>{state}</previousState></item>"
        )
    return "".join(items)


def _ended(call: Call, estate: Estate, answer: Answer) -> Answer:
    if answer.status == 200:
        for launch in _launches(call, estate):
            estate.end(launch, reason=_USER_ENDED)
    return answer


def _stop(call: Call, estate: Estate) -> Step:
    def stopped(answer: Answer) -> Answer:
        for launch in _launches(call, estate) if answer.status == 200 else ():
            estate.stop(launch)
        return answer

    return Step(after=None if call.dry_run else stopped)


def _describe_instances(call: Call, estate: Estate) -> Step:
    unseen = [launch.instance.id for launch in estate.launches(call.region) if not estate.visible(launch)]
    hidden = set(unseen) & set(call.values("InstanceId"))
    if hidden:
        missing = sorted(hidden)[0]
        raise Refusal("InvalidInstanceID.NotFound", f"The instance ID '{missing}' does not exist")
    for number, given in _numbered_filters(call):
        if given.get("Name") == "client-token":
            tokens = {value for key, value in given.items() if key.startswith("Value.")}
            uses = (use for token, use in estate.tokens.items() if token in tokens)
            found = [launch.instance.id for use in uses for launch in use.launches]
            seen = [instance_id for instance_id in found if instance_id not in unseen]
            return Step(form=_with_filter(call.form, number, "instance-id", seen or ["i-none"]))
    if unseen and not call.values("InstanceId"):
        return Step(after=lambda answer: _without_instances(answer, unseen))
    return Step()


def _console_output(call: Call, estate: Estate) -> Step:
    launch = estate.find(call.form.get("InstanceId", ""))
    if launch is None:
        return Step()
    text = _console_text(launch)
    when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Step(
        answer=xml_answer(
            call.action,
            f"<instanceId>{launch.instance.id}</instanceId><timestamp>{when}</timestamp>"
            f"<output>{base64.b64encode(text.encode()).decode('ascii')}</output>",
        )
    )


def _console_text(launch: Launch) -> str:
    if launch.machine is None:
        return ""
    key = launch.machine.host_key_public
    fingerprint = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    shown = base64.b64encode(fingerprint).decode("ascii").rstrip("=")
    lines = (
        "[    0.000000] Linux version 6.8.0-aws (mocked)",
        "ec2: #############################################################",
        "ec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----",
        f"ec2: 256 SHA256:{shown} root@{launch.instance.id} (ED25519)",
        "ec2: -----END SSH HOST KEY FINGERPRINTS-----",
        "ec2: #############################################################",
        "-----BEGIN SSH HOST KEY KEYS-----",
        key,
        "-----END SSH HOST KEY KEYS-----",
        "[   12.000000] cloud-init: finished",
    )
    return "\r\n".join(lines) + "\r\n"


def _delete_group(call: Call, estate: Estate) -> Step:
    group_id = call.form.get("GroupId", "")
    if not group_id:
        names = estate.backend(call.region).describe_security_groups()
        group_id = next((group.id for group in names if group.name == call.form.get("GroupName")), "")
    if not call.dry_run and estate.holders(group_id):
        raise Refusal("DependencyViolation", f"resource {group_id} has a dependent object")
    return Step()


def _delete_placement_group(call: Call, estate: Estate) -> Step:
    name = call.form.get("GroupName", "")
    return Step(answer=estate.placements.delete(call, in_use=bool(estate.placed_in(name, call.region))))


def _delete_key_pair(call: Call, estate: Estate) -> Step:
    wanted = call.form.get("KeyPairId")
    if wanted is None or "KeyName" in call.form:
        return Step()
    pairs = estate.backend(call.region).key_pairs.values()
    name = next((pair.key_name for pair in pairs if pair.id == wanted), "no such key pair")
    return Step(form={**call.form, "KeyName": name})


def _spot_history(call: Call, _estate: Estate) -> Step:
    zone = call.form.get("AvailabilityZone")
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:00:00.000Z")
    items = [
        f"<item><instanceType>{escape(name)}</instanceType><productDescription>Linux/UNIX</productDescription>"
        f"<spotPrice>{spot_usd(name, place)}</spotPrice><timestamp>{when}</timestamp>"
        f"<availabilityZone>{place}</availabilityZone></item>"
        for name in call.values("InstanceType")
        for place in zones_of(name, call.region)
        if zone in {None, place} and spot_usd(name, place) is not None
    ]
    inner = f"<spotPriceHistorySet>{''.join(items)}</spotPriceHistorySet><nextToken/>"
    return Step(answer=xml_answer(call.action, inner))


_RULES: Mapping[str, Callable[[Call, Estate], Step]] = {
    "CreatePlacementGroup": lambda call, estate: Step(answer=estate.placements.create(call)),
    "DescribePlacementGroups": lambda call, estate: Step(answer=estate.placements.describe(call)),
    "DeletePlacementGroup": _delete_placement_group,
    "RunInstances": _run_instances,
    "TerminateInstances": _terminate,
    "StopInstances": _stop,
    "DescribeInstances": _describe_instances,
    "GetConsoleOutput": _console_output,
    "DeleteSecurityGroup": _delete_group,
    "DeleteKeyPair": _delete_key_pair,
    "DescribeSpotPriceHistory": _spot_history,
}


def _digest(call: Call) -> str:
    told = {key: value for key, value in call.form.items() if key != "DryRun"}
    return hashlib.sha256(json.dumps([call.region, told], sort_keys=True).encode()).hexdigest()


def _launches(call: Call, estate: Estate) -> tuple[Launch, ...]:
    found = (estate.find(instance_id) for instance_id in call.values("InstanceId"))
    return tuple(launch for launch in found if launch is not None)


def _instance_ids(answer: Answer) -> tuple[str, ...]:
    found = re.findall(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.body)
    return tuple(dict.fromkeys(name.decode("ascii") for name in found)) if answer.status == 200 else ()


def _without_addresses(body: bytes) -> bytes:
    body = re.sub(rb"<association>.*?</association>", b"", body, flags=re.DOTALL)
    return re.sub(rb"<(ipAddress|publicIp|dnsName)>[^<]*</\1>", b"", body)


def _without_instances(answer: Answer, unseen: list[str]) -> Answer:
    def keep(match: re.Match[bytes]) -> bytes:
        return b"" if any(name.encode() in match[0] for name in unseen) else match[0]

    pattern = rb"<item>\s*<reservationId>.*?</reservationId>.*?</instancesSet>.*?</item>"
    return Answer(answer.status, answer.content_type, re.sub(pattern, keep, answer.body, flags=re.DOTALL))


def _numbered_filters(call: Call) -> tuple[tuple[int, Mapping[str, str]], ...]:
    return tuple(enumerate(call.groups("Filter"), start=1))


def _with_filter(form: Mapping[str, str], number: int, name: str, values: list[str]) -> dict[str, str]:
    prefix = f"Filter.{number}."
    kept = {key: value for key, value in form.items() if not key.startswith(prefix)}
    kept[prefix + "Name"] = name
    return kept | {f"{prefix}Value.{place}": value for place, value in enumerate(values, start=1)}
