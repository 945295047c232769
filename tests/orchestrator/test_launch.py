import stat
from collections.abc import Generator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from rentals import QUICK, REGION, Between, Rental, left_over, rental

from orchestrator import launch as launching
from orchestrator.admission import admit_caller
from orchestrator.aws.cloud import AwsCloud
from orchestrator.dryrun.cloud import MockedCloud
from orchestrator.dryrun.first_boot import read_user_data
from orchestrator.errors import (
    CloudRefused,
    InstanceDied,
    NoCapacity,
    PermissionMissing,
    QuotaExceeded,
    RunFailed,
    TimedOut,
)
from orchestrator.keys import make_host_key
from orchestrator.launch import Launched, records_of
from orchestrator.ledger import LedgerEvent, open_entries, read_ledger
from orchestrator.packaged import packaged
from orchestrator.record import Rental as MachineRental
from orchestrator.record import RunRecord, forget_keys, remember_machines, write_record
from orchestrator.resources import Kind, LaunchRequest
from orchestrator.user_data import fill_in

NUMBER = count(1)


@pytest.fixture
def rented(mock: MockedCloud, cloud: AwsCloud, tmp_path: Path) -> Generator[Rental]:
    mock.play(QUICK)
    made = rental(cloud, tmp_path, f"run-{next(NUMBER)}")
    yield made
    mock.play(QUICK)
    made.reader = made.writer = cloud
    assert made.teardown().survivors == ()
    assert left_over(mock, made.plan.run_id) == set()


def events(rented: Rental) -> list[tuple[LedgerEvent, Kind]]:
    return [(entry.event, entry.kind) for entry in read_ledger(rented.path)]


def described(rented: Rental, cloud: AwsCloud) -> dict[str, Any]:
    wanted = [{"Name": "tag:run-id", "Values": [rented.plan.run_id]}]
    told = cloud._clients.ec2.describe_instances(Filters=wanted)
    (instance,) = [entry for group in told["Reservations"] for entry in group["Instances"]]
    return instance


def test_each_creation_is_written_down_before_the_call_and_its_id_after_it(rented: Rental, cloud: AwsCloud):
    seen: dict[str, tuple[LedgerEvent, Kind]] = {}
    rented.writer = Between(cloud, lambda name: seen.setdefault(name, events(rented)[-1]))
    rented.launch()
    assert seen == {
        "create_security_group": (LedgerEvent.INTENDED, Kind.SECURITY_GROUP),
        "allow_ssh": (LedgerEvent.CREATED, Kind.SECURITY_GROUP),
        "import_key_pair": (LedgerEvent.INTENDED, Kind.KEY_PAIR),
        "run_instances": (LedgerEvent.INTENDED, Kind.INSTANCE),
    }
    assert events(rented)[-1] == (LedgerEvent.CREATED, Kind.INSTANCE)


def test_the_instance_is_as_it_was_planned(rented: Rental, cloud: AwsCloud):
    launched = rented.launch()
    told = described(rented, cloud)
    ec2 = cloud._clients.ec2
    assert told["InstanceType"] == launched.offer.instance_type == "g6.xlarge"
    assert told["Placement"]["AvailabilityZone"] == launched.offer.zone
    assert told["MetadataOptions"]["HttpTokens"] == "required"
    assert "IamInstanceProfile" not in told
    shutdown = ec2.describe_instance_attribute(
        InstanceId=told["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
    )
    assert shutdown["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    (volume,) = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [told["InstanceId"]]}])[
        "Volumes"
    ]
    assert (volume["VolumeType"], volume["Encrypted"], volume["Size"]) == ("gp3", True, 150)


def test_a_machine_has_rights_only_by_the_profile_that_the_spec_names(rented: Rental, cloud: AwsCloud):
    rented.plan = replace(rented.plan, spec=rented.plan.spec.model_copy(update={"instance_profile": "bucket-reader"}))
    rented.launch()
    assert described(rented, cloud)["IamInstanceProfile"]["Arn"].endswith(":instance-profile/bucket-reader")


def test_everything_carries_the_runs_tags_from_the_creating_call_on(mock: MockedCloud, rented: Rental, cloud: AwsCloud):
    rented.launch()
    assert "CreateTags" not in mock.calls()
    found = cloud.tagged(rented.plan.run_id)
    assert {entry.kind for entry in found} == set(Kind) - {Kind.PLACEMENT_GROUP}
    assert {entry.expires_at for entry in found} == {rented.plan.expires_at}


def test_port_22_is_open_to_the_caller_and_nothing_else_to_anybody(rented: Rental, cloud: AwsCloud):
    group_id = rented.launch().group.group_id
    (group,) = cloud._clients.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert [entry["CidrIp"] for entry in rule["IpRanges"]] == ["192.31.196.7/32"]
    assert not rule["Ipv6Ranges"]


def remembered(rented: Rental, launched: Launched) -> MachineRental:
    write_record(rented.folder, RunRecord(run_id=rented.plan.run_id, region=REGION, account_id="1"))
    return remember_machines(rented.folder, records_of(launched, rented.plan, now=rented.clock.now()))


def test_the_host_is_dialled_at_the_public_address_with_our_keys(rented: Rental):
    launched = rented.launch()
    host = remembered(rented, launched).host
    assert (host.address, host.port, host.user) == (launched.instance.public_ip, 22, "ubuntu")
    assert host.host_key == launched.host_key.public_openssh
    assert stat.S_IMODE(host.private_path.stat().st_mode) == 0o600
    assert host.private_path.parent == rented.folder
    known = rented.folder / "known_hosts"
    assert known.read_text() == f"{host.address} {host.host_key}\n"
    assert stat.S_IMODE(known.stat().st_mode) == 0o600


def addresses_admitted(cloud: AwsCloud, group_id: str) -> set[str]:
    (group,) = cloud._clients.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    return {entry["CidrIp"] for rule in group["IpPermissions"] for entry in rule["IpRanges"]}


@pytest.mark.parametrize(
    ("opened", "then"),
    [
        ("198.51.100.9/32", {"192.31.196.7/32"}),
        ("192.31.196.7/32", {"192.31.196.7/32"}),
        ("198.51.100.0/24", {"198.51.100.0/24"}),
    ],
)
def test_a_caller_who_has_moved_is_admitted_unless_a_network_was_named(
    cloud: AwsCloud, rented: Rental, opened: str, then: set[str]
):
    rented.plan = replace(rented.plan, ingress_cidr=opened)
    group_id = rented.launch().group.group_id
    admit(cloud, rented)
    assert addresses_admitted(cloud, group_id) == then
    (entry,) = [one for one in open_entries(read_ledger(rented.path)) if one.kind is Kind.SECURITY_GROUP]
    assert set(entry.detail["ingress_cidr"].split()) == then
    admit(cloud, rented)
    assert len(rented.said) == len(set(rented.said)), "what is so already is not done again"


def admit(cloud: AwsCloud, rented: Rental):
    admit_caller(
        read_ledger(rented.path), reader=cloud, writer=rented.writer, ledger=rented.ledger, tell=rented.said.append
    )


def test_an_address_that_the_user_named_stays_the_one_that_is_admitted(cloud: AwsCloud, rented: Rental):
    spec = rented.plan.spec.model_copy(update={"ingress_cidr": "198.51.100.9/32"})
    rented.plan = replace(rented.plan, spec=spec, ingress_cidr="198.51.100.9/32")
    group_id = rented.launch().group.group_id
    admit(cloud, rented)
    assert addresses_admitted(cloud, group_id) == {"198.51.100.9/32"}


def test_an_address_that_could_not_be_closed_is_closed_the_next_time(cloud: AwsCloud, rented: Rental):
    rented.plan = replace(rented.plan, ingress_cidr="198.51.100.9/32")
    group_id = rented.launch().group.group_id

    def refuse(called: str) -> None:
        if called == "revoke_ssh":
            raise PermissionMissing("revoking")

    rented.writer = Between(cloud, refuse)
    with pytest.raises(PermissionMissing):
        admit(cloud, rented)
    assert addresses_admitted(cloud, group_id) == {"198.51.100.9/32", "192.31.196.7/32"}
    rented.writer = cloud
    admit(cloud, rented)
    assert addresses_admitted(cloud, group_id) == {"192.31.196.7/32"}


def test_no_secret_enters_the_ledger_or_what_is_said(rented: Rental):
    rented.launch()
    assert "PRIVATE" not in rented.path.read_text() + "".join(rented.said)


def test_the_next_offer_is_tried_where_capacity_is_short_each_with_its_own_token(mock: MockedCloud, rented: Rental):
    first, second, third, *_ = rented.plan.offers
    mock.play({**QUICK, "capacity": {first.zone: "none", f"g6.xlarge@{second.zone}": "none"}})
    assert rented.launch().offer == third
    instances = [entry for entry in read_ledger(rented.path) if entry.kind is Kind.INSTANCE]
    assert [entry.event for entry in instances] == [
        LedgerEvent.INTENDED,
        LedgerEvent.FAILED,
        LedgerEvent.INTENDED,
        LedgerEvent.FAILED,
        LedgerEvent.INTENDED,
        LedgerEvent.CREATED,
    ]
    assert len({entry.token for entry in instances}) == 3
    assert mock.calls()["RunInstances"] == 3, "a lack of capacity is not worth a repetition"


def test_no_capacity_anywhere_names_every_offer(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "capacity": {offer.zone: "none" for offer in rented.plan.offers}})
    with pytest.raises(NoCapacity) as refused:
        rented.launch()
    assert all(offer.zone in str(refused.value) for offer in rented.plan.offers)


@pytest.mark.parametrize("failure", [{"hang_up": True}, {"code": "InternalError"}])
def test_a_lost_answer_is_asked_for_again_with_the_same_token(
    mock: MockedCloud, rented: Rental, failure: dict[str, Any]
):
    mock.play({**QUICK, "fail": [{"action": "RunInstances", "after": True, "times": 2, **failure}]})
    rented.launch()
    assert mock.calls()["RunInstances"] == 3
    names = [name for name in left_over(mock, rented.plan.run_id) if name.startswith("instance")]
    assert len(names) == 1


def test_a_refusal_after_a_lost_answer_does_not_prove_that_nothing_was_started(mock: MockedCloud, rented: Rental):
    lost = {"action": "RunInstances", "nth": 1, "after": True, "hang_up": True}
    refused = {"action": "RunInstances", "nth": 2, "code": "UnauthorizedOperation"}
    mock.play({**QUICK, "fail": [lost, refused]})
    with pytest.raises(PermissionMissing):
        rented.launch()
    assert events(rented)[-1] == (LedgerEvent.INTENDED, Kind.INSTANCE)
    assert [name for name in left_over(mock, rented.plan.run_id) if name.startswith("instance")]


def test_a_refusal_at_once_is_written_down_as_such(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "fail": [{"action": "RunInstances", "code": "UnauthorizedOperation"}]})
    with pytest.raises(PermissionMissing, match="ec2:RunInstances"):
        rented.launch()
    assert events(rented)[-1] == (LedgerEvent.FAILED, Kind.INSTANCE)


def test_a_group_or_key_pair_whose_answer_was_lost_is_adopted(mock: MockedCloud, rented: Rental):
    lost = [{"action": name, "after": True, "hang_up": True} for name in ("CreateSecurityGroup", "ImportKeyPair")]
    mock.play({**QUICK, "fail": lost})
    launched = rented.launch()
    assert f"security group {launched.group.group_id}" in left_over(mock, rented.plan.run_id)


def test_a_group_of_that_name_that_is_not_ours_is_left_alone(mock: MockedCloud, rented: Rental, cloud: AwsCloud):
    name = f"launch-and-train-{rented.plan.run_id}"
    strange = cloud.create_security_group(name, vpc_id=rented.plan.placement.vpc_id, tags={"run-id": "other"})
    with pytest.raises(CloudRefused, match="not of this run"):
        rented.launch()
    assert rented.teardown().survivors == ()
    assert f"security group {strange}" in left_over(mock, "other")
    cloud.delete_security_group(strange)


def test_a_token_that_was_used_for_something_else_ends_the_launch_and_is_torn_down(
    mock: MockedCloud, rented: Rental, cloud: AwsCloud
):
    def used_before(request: LaunchRequest) -> Any:
        cloud.run_instances(replace(request, volume_gib=request.volume_gib + 1))
        return cloud.run_instances(request)

    writer: Any = Between(cloud, lambda _: None)
    writer.run_instances = used_before
    rented.writer = writer
    with pytest.raises(CloudRefused, match="IdempotentParameterMismatch"):
        rented.launch()
    assert [name for name in left_over(mock, rented.plan.run_id) if name.startswith("instance")]


def test_key_pair_and_group_that_run_instances_does_not_see_yet_are_waited_for(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "fail": [{"action": "RunInstances", "times": 3, "code": "InvalidKeyPair.NotFound"}]})
    assert rented.launch().instance.state == "running"


def test_an_instance_that_is_not_visible_yet_is_waited_for(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "invisible_seconds": 0.15})
    assert rented.launch().instance.public_ip


def test_an_instance_that_dies_tells_ec2s_reason(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "dies": "Client.VolumeLimitExceeded"})
    with pytest.raises(InstanceDied, match=r"Client\.VolumeLimitExceeded"):
        rented.launch()


def test_capacity_that_is_lost_only_after_the_launch_leads_to_the_next_offer(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "dies": "Server.InsufficientInstanceCapacity"})
    with pytest.raises(NoCapacity):
        rented.launch()
    assert mock.calls()["RunInstances"] == len(rented.plan.offers)


def test_a_quota_that_only_run_instances_knows_is_named(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "quota": {"L-DB2E81BA": 0}})
    with pytest.raises(QuotaExceeded, match=r"ask AWS for more of quota L-DB2E81BA .* in us-east-1"):
        rented.launch()
    assert mock.calls()["RunInstances"] == 1


def test_waiting_for_the_instance_has_an_end(mock: MockedCloud, rented: Rental, monkeypatch: pytest.MonkeyPatch):
    # Two hundred questions cost five seconds of moto.
    monkeypatch.setattr(launching, "_RUNNING_SECONDS", 15.0)
    mock.play({**QUICK, "pending_seconds": 600.0})
    rented.clock._really = 0.0
    with pytest.raises(TimedOut, match="to run with a public address"):
        rented.launch()


def test_an_answer_that_never_comes_ends_the_launch_and_leaves_the_entry_open(mock: MockedCloud, rented: Rental):
    mock.play({**QUICK, "fail": [{"action": "RunInstances", "times": 99, "hang_up": True}]})
    with pytest.raises(RunFailed, match="cannot be reached"):
        rented.launch()
    assert events(rented)[-1] == (LedgerEvent.INTENDED, Kind.INSTANCE)


def test_the_first_boot_file_is_filled_in_so_that_the_machine_understands_it():
    host_key = make_host_key()
    template = (packaged("infra") / "first-boot.yaml").read_text()
    text = fill_in(template, host_key, max_hours=1.5)
    found = read_user_data(text.encode())
    assert found.host_key_private == host_key.private_openssh
    assert found.self_destruct_seconds == 5400
    assert yaml.safe_load(text)["ssh_keys"]["ed25519_public"] == host_key.public_openssh


def test_user_data_longer_than_ec2_takes_is_refused_before_any_call(mock: MockedCloud, rented: Rental):
    before = mock.calls()
    with pytest.raises(RunFailed, match="EC2 takes 16384"):
        rented.launch("#cloud-config\n" + "#" * 16384)
    assert mock.calls() == before
    assert read_ledger(rented.path) == ()


def test_keys_are_forgotten_once_and_again(rented: Rental):
    remembered(rented, rented.launch())
    forget_keys(rented.folder)
    assert {path.name for path in rented.folder.iterdir()} == {"run.json", "ledger.jsonl"}
    forget_keys(rented.folder)
