"""The doctor: whether a run could be rented from here, finding by finding, each with its remedy. Reads only; what
would be created is asked for as EC2's dry runs, which create nothing.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from orchestrator.errors import OrchestratorError
from orchestrator.imaging import find_image
from orchestrator.offering import types_of
from orchestrator.ports import Clock, CloudReader
from orchestrator.resources import MANAGED_BY, Image, InstanceType, LaunchRequest, Network
from orchestrator.room import raise_text
from orchestrator.spec import RunSpec
from orchestrator.survey import find_network, ingress_of

_SKEW_SECONDS = 240.0
"""AWS refuses requests that are off by five minutes."""
_OLDEST_PYTHON = (3, 11)
_SHOWN = ("boto3", "paramiko", "typer", "jax")
_POLICY = "have the account's owner allow it, as infra/iam-policy.json does"
_DEFAULT_TYPE = "g6.xlarge"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `verdict`: `ok`, `bad`, or `note` for what may be so and cannot be told from here."""

    name: str
    verdict: str
    detail: str
    remedy: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether a run would fail by it."""
        return self.verdict == "bad"


def examine(spec: RunSpec, reader: CloudReader, clock: Clock) -> tuple[Finding, ...]:
    """Look at everything a run of `spec` needs. Where AWS does not know the caller, it is asked nothing else."""
    findings = [*_here()]
    known = _tried("credentials", "log in, say with `aws login` or `aws sso login`", lambda: _credentials(reader))
    findings.append(known)
    if known.is_bad:
        return tuple(findings)
    findings += [
        _tried("account", "log in to the other account, or change account_id", lambda: _account(spec, reader)),
        _tried("clock", "set this computer's clock, say by NTP", lambda: _clock(reader, clock)),
        _tried("region", "choose a region that the account has enabled", lambda: _region(reader)),
        _tried("network", f"`aws ec2 create-default-vpc --region {reader.region}`", lambda: _network(reader)),
        _tried("address", "set ingress_cidr in the run spec", lambda: _address(spec, reader)),
        _tried("image", "choose another image", lambda: _image(spec, reader)),
        _tried("price", "allow pricing:GetProducts, or choose another type", lambda: _price(spec, reader)),
        _quota(spec, reader),
        *_rights(spec, reader),
        _leftovers(reader),
    ]
    return tuple(findings)


def _tried(name: str, remedy: str, check: Callable[[], tuple[bool, str]]) -> Finding:
    try:
        good, detail = check()
    except OrchestratorError as error:
        return Finding(name, "bad", str(error), remedy)
    return Finding(name, "ok", detail) if good else Finding(name, "bad", detail, remedy)


def _here() -> Iterator[Finding]:
    """What can be told without AWS."""
    python = ".".join(map(str, sys.version_info[:3]))
    versions = ", ".join(f"{name} {_version(name) or 'missing'}" for name in _SHOWN)
    if sys.version_info[:2] < _OLDEST_PYTHON:
        yield Finding("versions", "bad", f"Python {python}, {versions}", "install Python 3.11 or newer")
    elif _version("jax") is None:
        yield Finding("versions", "note", f"Python {python}, {versions}: the plan cannot say what fits", "install jax")
    else:
        yield Finding("versions", "ok", f"Python {python}, {versions}")
    types = _ssh_key_types()
    if types is None:
        yield Finding("ssh", "note", "no ssh(1) here; only `orchestrator ssh` wants it", "install OpenSSH's client")
    elif "ssh-ed25519" not in types:
        yield Finding(
            "ssh", "note", "ssh(1) here knows no ed25519 keys; `orchestrator ssh` fails", "install a newer one"
        )
    else:
        yield Finding("ssh", "ok", "ssh(1) knows ed25519 keys")


def _version(name: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(name)
    return None


def _ssh_key_types() -> list[str] | None:
    program = shutil.which("ssh")
    if program is None:
        return None
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([program, "-Q", "key"], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.split()
    return []


def _credentials(reader: CloudReader) -> tuple[bool, str]:
    account = reader.account()
    return True, f"{account.arn} of account {account.account_id}"


def _account(spec: RunSpec, reader: CloudReader) -> tuple[bool, str]:
    found = reader.account().account_id
    if spec.account_id is None:
        return True, f"{found}; the run spec allows any (account_id)"
    return found == spec.account_id, f"{found}; the run spec allows {spec.account_id}"


def _clock(reader: CloudReader, clock: Clock) -> tuple[bool, str]:
    theirs = reader.server_time()
    if theirs is None:
        return True, "AWS tells no time; it accepts our requests"
    off = abs((clock.now() - theirs).total_seconds())
    return off < _SKEW_SECONDS, f"{off:.0f} s from AWS's"


def _region(reader: CloudReader) -> tuple[bool, str]:
    enabled = reader.regions()
    return reader.region in enabled, f"{reader.region}, one of {len(enabled)} that the account has enabled"


def _network(reader: CloudReader) -> tuple[bool, str]:
    network = find_network(reader)
    free = sum(subnet.free_addresses > 0 for subnet in network.subnets)
    return free > 0, f"default VPC {network.vpc_id}, {free} subnets with free addresses"


def _address(spec: RunSpec, reader: CloudReader) -> tuple[bool, str]:
    return True, f"SSH would be open to {ingress_of(reader, spec) or 'nobody, and reached through Session Manager'}"


def _image(spec: RunSpec, reader: CloudReader) -> tuple[bool, str]:
    image = find_image(reader, spec)
    return True, f"{image.image_id}  {image.name}"


def _first_type(spec: RunSpec, reader: CloudReader) -> InstanceType:
    """The first type that was named, or the smallest that meets the need. `UsageError` if there is none."""
    types = types_of(reader, spec, find_image(reader, spec))
    return min(types, key=lambda found: found.vcpus) if spec.by_need else types[0]


def _price(spec: RunSpec, reader: CloudReader) -> tuple[bool, str]:
    name = _first_type(spec, reader).name
    price = reader.on_demand_prices([name]).get(name)
    return price is not None, f"{name}: {price.usd_per_hour if price else 'no'} USD per hour on demand"


def _quota(spec: RunSpec, reader: CloudReader) -> Finding:
    """For the first type and market of the run; what cannot be read is a note, since RunInstances has the last word."""
    try:
        found = _first_type(spec, reader)
        way = found.name, spec.markets[0]
        quota = reader.quotas([way]).get(way)
        used = reader.vcpus_in_use([way]).get(way, 0)
    except OrchestratorError as error:
        return Finding("quota", "note", f"could not be read: {error}", "allow servicequotas:GetServiceQuota")
    if quota is None:
        return Finding(
            "quota", "note", f"not known for {found.name}; AWS may refuse", "see Service Quotas in the console"
        )
    wanted = found.vcpus * spec.nodes
    need = used + wanted
    detail = (
        f"{quota.code} ({quota.name}): {quota.limit_vcpus:g} vCPUs, {used} in use, "
        f"{spec.nodes} × {found.name} takes {wanted}"
    )
    remedy = raise_text(quota, wanted=need, region=reader.region)
    return Finding("quota", "ok", detail) if need <= quota.limit_vcpus else Finding("quota", "bad", detail, remedy)


def _rights(spec: RunSpec, reader: CloudReader) -> Iterator[Finding]:
    try:
        image, network = find_image(reader, spec), find_network(reader)
        answers = reader.rights(_request(spec, _first_type(spec, reader).name, image, network), vpc_id=network.vpc_id)
    except OrchestratorError as error:
        yield Finding("rights", "note", f"not asked: {error}", "mend the above first")
        return
    yield from _verdicts(answers)


def _verdicts(answers: Mapping[str, str]) -> Iterator[Finding]:
    for action, refusal in answers.items():
        if not refusal:
            yield Finding(action, "ok", "allowed")
        elif action == "ec2:RunInstances":
            # Asked without the group and key pair of a run, to which a good policy ties it.
            yield Finding(action, "note", refusal, f"unless the policy ties it to a run's own group: {_POLICY}")
        else:
            yield Finding(action, "bad", refusal, _POLICY)


def _request(spec: RunSpec, instance_type: str, image: Image, network: Network) -> LaunchRequest:
    return LaunchRequest(
        client_token="doctor",  # noqa: S106 - no secret
        image=image,
        instance_type=instance_type,
        market=spec.markets[0],
        subnet_id=network.subnets[0].subnet_id,
        group_id="",
        key_name="",
        volume_gib=max(spec.volume_gib, image.root_size_gib),
        user_data="",
        tags={"managed-by": MANAGED_BY, "run-id": "doctor", "expires-at": "1970-01-01T00:00:00Z"},
        count=spec.nodes,
    )


def _leftovers(reader: CloudReader) -> Finding:
    try:
        found = reader.tagged()
    except OrchestratorError as error:
        return Finding("leftovers", "bad", str(error), _POLICY)
    if found:
        what = ", ".join(f"{one.kind} {one.resource_id}" for one in found[:3])
        return Finding(
            "leftovers", "note", f"{len(found)} of earlier runs: {what}", "`orchestrator ls --cloud`, `sweep`"
        )
    return Finding("leftovers", "ok", "nothing of ours exists")
