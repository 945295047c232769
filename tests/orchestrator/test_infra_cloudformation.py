"""`infra/cloudformation`: clean by cfn-lint, the policy's statements, and whom its roles trust with what."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from orchestrator.packaged import packaged

TEMPLATE = packaged("infra") / "cloudformation" / "launch-and-train.yaml"
PSEUDO = {"AWS::AccountId": "ACCOUNT", "AWS::Region": "us-east-1"}
NOTHING = {"Ref": "AWS::NoValue"}


class _Loader(yaml.SafeLoader):
    """Knows CloudFormation's short tags."""


def _tagged(loader: _Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    else:
        assert isinstance(node, yaml.SequenceNode)
        value = loader.construct_sequence(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _tagged)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return yaml.load(TEMPLATE.read_text(), Loader=_Loader)


class Stack:
    """What CloudFormation would make of the template with these parameters."""

    def __init__(self, template: dict[str, Any], **given: str) -> None:
        self._template = template
        self._values = {name: given.get(name, asked["Default"]) for name, asked in template["Parameters"].items()}
        self._values["InstanceTypes"] = self._values["InstanceTypes"].split(",")
        made = template["Resources"]
        self.resources = {name: self._made(one) for name, one in made.items() if self._holds(one)}

    def _holds(self, resource: Mapping[str, Any]) -> bool:
        return "Condition" not in resource or self._is(resource["Condition"])

    def _is(self, condition: str) -> bool:
        return bool(self._made(self._template["Conditions"][condition]))

    def _made(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._made(one) for one in node if one != NOTHING and self._made(one) != NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((key, value),) = node.items()
            rule = _RULES.get(key)
            if rule is not None:
                return rule(self, value)
        return {key: self._made(value) for key, value in node.items()}

    def _ref(self, name: str) -> Any:
        return NOTHING if name == "AWS::NoValue" else (PSEUDO | self._values).get(name, f"<{name}>")

    def _if(self, branches: list[Any]) -> Any:
        condition, yes, no = branches
        return self._made(yes if self._is(condition) else no)


_RULES: dict[str, Any] = {
    "Ref": Stack._ref,
    "Fn::Sub": lambda stack, text: re.sub(r"\$\{([^}]+)\}", lambda found: stack._ref(found[1]), text),
    "Fn::If": Stack._if,
    "Fn::GetAtt": lambda _, name: f"<{name}>",
    "Fn::Not": lambda stack, of: not stack._made(of[0]),
    "Fn::Or": lambda stack, of: any(stack._made(of)),
    "Fn::And": lambda stack, of: all(stack._made(of)),
    "Fn::Equals": lambda stack, of: stack._made(of[0]) == stack._made(of[1]),
    "Condition": lambda stack, name: stack._is(name) if isinstance(name, str) else {"Condition": stack._made(name)},
}


def statements(policy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """With lists in order: what they list is a set."""

    def plain(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: plain(value) for key, value in node.items()}
        return sorted(node) if isinstance(node, list) else node

    return [plain(statement) for statement in policy["Statement"]]


def trusted(stack: Stack) -> dict[str, str]:
    (statement,) = stack.resources["GitHubRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert list(statement["Condition"]) == ["StringEquals"]
    found = statement["Condition"]["StringEquals"]
    return {key.rpartition(":")[2]: value for key, value in found.items()}


def test_cfn_lint_finds_nothing() -> None:
    # A process of its own: importing it takes longer than all the other tests here, in every worker.
    lint = "import sys; from cfnlint.runner import main; sys.exit(main())"
    command = [sys.executable, "-c", lint, "--format", "parseable", "--regions", "us-east-1", "--", str(TEMPLATE)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_its_policy_is_the_policy(template: dict[str, Any]) -> None:
    policy = json.loads((packaged("infra") / "iam-policy.json").read_text())
    made = Stack(template).resources["RentingPolicy"]["Properties"]["PolicyDocument"]
    assert made["Version"] == policy["Version"]
    assert statements(made) == statements(policy)
    with_account = json.dumps(made, separators=(",", ":")).replace("ACCOUNT", "1" * 12)
    assert len(with_account) < 6144


def test_without_parameters_there_is_the_policy_and_nobody_who_has_it(template: dict[str, Any]) -> None:
    assert set(Stack(template).resources) == {"RentingPolicy"}


def test_workflows_of_one_environment_else_of_one_branch_are_trusted_and_no_pattern_is(
    template: dict[str, Any],
) -> None:
    of_branch = Stack(template, GitHubRepository="me/mine")
    assert trusted(of_branch) == {"aud": "sts.amazonaws.com", "sub": "repo:me/mine:ref:refs/heads/main"}
    of_environment = Stack(template, GitHubRepository="me/mine", GitHubEnvironment="aws")
    assert trusted(of_environment)["sub"] == "repo:me/mine:environment:aws"
    for name in ("GitHubRepository", "GitHubEnvironment", "GitHubBranch"):
        allowed = re.compile(template["Parameters"][name]["AllowedPattern"])
        assert not any(allowed.search(pattern) for pattern in ("*", "me/*", "ma?n", "a b"))


def test_a_provider_that_the_account_has_is_not_made_again(template: dict[str, Any]) -> None:
    known = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
    assert re.search(template["Parameters"]["GitHubProvider"]["AllowedPattern"], known)
    assert "GitHubOidcProvider" in Stack(template, GitHubRepository="me/mine").resources
    stack = Stack(template, GitHubRepository="me/mine", GitHubProvider=known)
    assert "GitHubOidcProvider" not in stack.resources
    (statement,) = stack.resources["GitHubRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Federated": known}


def test_the_workflows_role_may_rent_and_nothing_else(template: dict[str, Any]) -> None:
    role = Stack(template, GitHubRepository="me/mine").resources["GitHubRole"]["Properties"]
    assert role["ManagedPolicyArns"] == ["<RentingPolicy>"]
    assert "Policies" not in role
    role = Stack(template, GitHubRepository="me/mine", Bucket="mine").resources["GitHubRole"]["Properties"]
    assert role["ManagedPolicyArns"] == ["<RentingPolicy>", "<PassMachineRolePolicy>"]


def test_a_machine_gets_a_prefix_of_one_bucket_and_its_role_can_be_given_to_machines_only(
    template: dict[str, Any],
) -> None:
    made = Stack(template, Bucket="mine").resources
    assert set(made) == {"RentingPolicy", "MachineRole", "MachineProfile", "PassMachineRolePolicy"}
    (policy,) = made["MachineRole"]["Properties"]["Policies"]
    resources = {one["Sid"]: one["Resource"] for one in policy["PolicyDocument"]["Statement"]}
    assert resources == {
        "ReadAndWriteBelowPrefix": "arn:aws:s3:::mine/launch-and-train/*",
        "ListBelowPrefix": "arn:aws:s3:::mine",
    }
    listing = policy["PolicyDocument"]["Statement"][1]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "launch-and-train/*"}}
    assert made["MachineProfile"]["Properties"]["Roles"] == ["<MachineRole>"]
    passing, bringing, looking = made["PassMachineRolePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert passing["Resource"] == "<MachineRole.Arn>"
    assert (bringing["Action"], bringing["Resource"]) == ("s3:GetObject", "arn:aws:s3:::mine/launch-and-train/*")
    assert (looking["Action"], looking["Condition"]) == ("s3:ListBucket", listing["Condition"])
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_data_elsewhere_may_be_read_by_machines_and_looked_at_by_the_caller(template: dict[str, Any]) -> None:
    data = "arn:aws:s3:::theirs/ratings.zip"
    made = Stack(template, DataObjects=data).resources
    (policy,) = made["MachineRole"]["Properties"]["Policies"]
    (reading,) = policy["PolicyDocument"]["Statement"]
    assert (reading["Action"], reading["Resource"]) == ("s3:GetObject", data)
    passing, looking = made["PassMachineRolePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (passing["Action"], looking["Action"], looking["Resource"]) == ("iam:PassRole", "s3:GetObject", data)


def test_machines_without_an_open_port_are_reached_by_ssh_in_sessions_and_by_nothing_else(
    template: dict[str, Any],
) -> None:
    made = Stack(template, SessionManager="true").resources
    role = made["MachineRole"]["Properties"]
    assert role["ManagedPolicyArns"] == ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"]
    assert role["Policies"] == []
    _, machine, document = made["PassMachineRolePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert machine["Action"] == document["Action"] == "ssm:StartSession"
    assert machine["Condition"] == {"StringEquals": {"ssm:resourceTag/managed-by": "launch-and-train"}}
    assert document["Resource"].endswith("document/AWS-StartSSHSession")
