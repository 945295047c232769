"""The scanning of flags, on a made-up command with the kinds of flags DSSTNE's programs have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from trainer.errors import SettingsError
from trainer.flags import Names, Required, absent, flag_command, readable, scan


def run(*arguments: str, unless: str = "") -> Result:
    app = typer.Typer(rich_markup_mode=None)
    required = (
        Required("-n", "name."),
        Required("-i", "input.", readable("input file")),
        Required("-o", "output.", absent("Output file"), unless="--keep"),
    )

    @app.command(cls=flag_command(*required, unless=unless))
    def command(
        name: Annotated[str, typer.Option("-n", "--name")] = "",
        source: Annotated[str, typer.Option("-i", "--source")] = "",
        result: Annotated[str, typer.Option("-o")] = "",
        create: Annotated[bool, typer.Option("-c")] = False,
        count: Annotated[int, typer.Option("-b", min=1)] = 3,
        l2: Annotated[float, typer.Option("-lambda")] = 0.5,
        l1: Annotated[float, typer.Option("-lambda1")] = 0.25,
        seed: Annotated[int, typer.Option("--seed")] = 1,
        keep: Annotated[bool, typer.Option("--keep/--drop")] = False,
        run_dir: Annotated[str, typer.Option("--run-dir")] = "",
        more: Annotated[list[str] | None, typer.Option("--more")] = None,
    ) -> None:
        typer.echo([name, source, result, create, count, l2, l1, seed, keep, run_dir, *(more or [])])

    return CliRunner().invoke(app, list(arguments))


def given_to(*arguments: str) -> list[object]:
    """What the command gets, beyond what is required."""
    done = run("-n", "gl", "-i", "/", "-o", "out", *arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("['gl', '/', 'out', ")
    return list(eval(done.stdout))[3:]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [False, 3, 0.5, 0.25, 1, False, ""]),
        (["-c", "-b", "8"], [True, 8, 0.5, 0.25, 1, False, ""]),
        (["-b", "8", "-b", "9"], [False, 8, 0.5, 0.25, 1, False, ""]),
        (["-lambda", "-0.5", "-lambda1", "1e-3"], [False, 3, -0.5, 0.001, 1, False, ""]),
        (["-zzz", "stray", "-b8", "--", "-", "-d=x"], [False, 3, 0.5, 0.25, 1, False, ""]),
        (["--seed", "7", "--keep"], [False, 3, 0.5, 0.25, 7, True, ""]),
        (["-b", "5", "--seed=9", "-c", "--drop"], [True, 5, 0.5, 0.25, 9, False, ""]),
        (["--run-dir", "-c", "-b", "2"], [False, 2, 0.5, 0.25, 1, False, "-c"]),
        (["--more", "a", "--more=b"], [False, 3, 0.5, 0.25, 1, False, "", "a", "b"]),
        (["--run-dir="], [False, 3, 0.5, 0.25, 1, False, ""]),
    ],
)
def test_the_first_flag_counts_and_what_is_unknown_is_passed_over(arguments: list[str], expected: list[object]):
    assert given_to(*arguments) == expected


def test_a_value_is_whatever_comes_next_and_counts_as_a_flag_too():
    assert (
        run("-n", "-c", "-i", "/", "-o", "--seed").stdout == "['-c', '/', '--seed', True, 3, 0.5, 0.25, 1, False, '']\n"
    )
    assert run("-n", "-i", "/", "-o", "").stdout == "['-i', '/', '', False, 3, 0.5, 0.25, 1, False, '']\n"


def test_a_long_option_stands_for_its_flag_and_outranks_it():
    assert run("--name", "gl", "-i", "/", "-o", "out").stdout.startswith("['gl', '/', 'out', ")
    both = run("--name=gl", "-n", "x", "-i", "nowhere", "--source", "/", "-o", "out")
    assert both.stdout.startswith("['gl', '/', 'out', ")


def test_required_flags_are_checked_in_order_each_with_its_value(tmp_path: Path):
    (tmp_path / "in").write_text("")
    steps = [
        ([], "Error: Missing required argument: -n: name.\nUsage: "),
        (["-n", "gl"], "Error: Missing required argument: -i: input.\nUsage: "),
        (["-n", "gl", "-i", "nowhere"], "Error: Cannot read input file: nowhere\n"),
        (["-n", "gl", "-i", ""], "Error: Cannot read input file: \n"),
        (["-n", "gl", "-i", str(tmp_path / "in")], "Error: Missing required argument: -o: output.\nUsage: "),
    ]
    for arguments, expected in steps:
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith(expected)


def test_a_required_flag_may_be_missing_where_an_option_stands_for_it(tmp_path: Path):
    assert run("-n", "gl", "-i", "/", "--keep").exit_code == 0
    done = run("-n", "gl", "-i", "/", "-o", str(tmp_path), "--keep")
    assert (done.exit_code, done.stderr) == (1, f"Error: Output file already exists: {tmp_path}\n")


def test_the_usage_names_the_required_flags_in_order():
    assert "-n NAME -i SOURCE -o RESULT [OPTIONS]" in " ".join(run().stderr.split())


def test_nothing_is_required_where_the_option_that_stands_for_it_is_given():
    done = run("--run-dir", "runs/1", unless="--run-dir")
    assert (done.exit_code, done.stdout) == (0, "['', '', '', False, 3, 0.5, 0.25, 1, False, 'runs/1']\n")
    assert run(unless="--run-dir").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-b"], "Error: -b is the last argument; a value is wanted after it\n"),
        (["--seed"], "Error: --seed is the last argument; a value is wanted after it\n"),
        (["--sed", "5"], "Error: No such option: --sed\n"),
        (["--keep=yes"], "Error: No such option: --keep=yes\n"),
        (["-b", "many"], "Error: Invalid value for '-b': "),
        (["-b", "0"], "Error: Invalid value for '-b': "),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_1(arguments: list[str], expected: str):
    done = run("-n", "gl", "-i", "/", "-o", "out", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_h_shows_the_help_and_ends_with_1_and_help_with_0():
    for arguments, status in ((["-n", "-h"], 1), (["--help"], 0)):
        done = run(*arguments)
        assert done.exit_code == status
        assert "-lambda1" in done.stdout
        assert done.stderr == ""


NAMES = Names(frozenset({"-a", "-b"}), frozenset({"-c"}), {"-a": "a", "-b": "b", "-c": "c"})


def naive(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for flag in ("-a", "-b", "-c"):
        for place, word in enumerate(arguments):
            if word == flag:
                found.append((flag, arguments[place + 1] if flag != "-c" and place + 1 < len(arguments) else None))
                break
    return found


@given(st.lists(st.sampled_from(["-a", "-b", "-c", "x", "", "-ab", "--"]), max_size=8))
def test_without_long_options_each_flag_is_looked_for_on_its_own(arguments: list[str]):
    assert scan(arguments, NAMES) == naive(arguments)


def test_a_long_option_that_is_not_known_is_refused_unless_it_is_a_value():
    assert scan(["-a", "--b"], NAMES) == [("-a", "--b")]
    with pytest.raises(SettingsError, match="No such option: --b"):
        scan(["-c", "--b"], NAMES)
