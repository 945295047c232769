"""The README's command reference, written from each program's own `--help`.

`python tests/reference.py --write` brings the README up to date; `test_docs.py` checks that it is.
"""

import os
import re
import sys
from pathlib import Path

os.environ["COLUMNS"] = "100"
os.environ["TERM"] = "dumb"

import typer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
OPEN, CLOSE = "<!-- reference -->", "<!-- end of reference -->"


def programs() -> dict[str, typer.Typer]:
    from orchestrator.cli import app, whole_job
    from trainer.cli import app as trainer_app

    return {"launch-and-train": whole_job, "orchestrator": app, "trainer": trainer_app}


def verbs(program: typer.Typer) -> list[str]:
    command = typer.main.get_command(program)
    return list(getattr(command, "commands", {}))


def help_text(name: str, program: typer.Typer, verb: str | None) -> str:
    arguments = [verb, "--help"] if verb else ["--help"]
    result = CliRunner().invoke(program, arguments, prog_name=name, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def reference() -> str:
    parts: list[str] = []
    for name, program in programs().items():
        titles = [None] if name == "launch-and-train" else [None, *verbs(program)]
        for verb in titles:
            if name == "orchestrator" and verb == "launch-and-train":
                continue
            parts.append(f"```text\n$ {name}{f' {verb}' if verb else ''} --help\n{help_text(name, program, verb)}\n```")
    return "\n\n".join(parts)


def with_reference(readme: str) -> str:
    pattern = re.compile(f"{re.escape(OPEN)}.*?{re.escape(CLOSE)}", re.DOTALL)
    assert pattern.search(readme), f"README.md lacks {OPEN} … {CLOSE}"
    return pattern.sub(lambda _: f"{OPEN}\n{reference()}\n{CLOSE}", readme)


if __name__ == "__main__":
    current = README.read_text(encoding="utf-8")
    renewed = with_reference(current)
    if "--write" in sys.argv:
        README.write_text(renewed, encoding="utf-8")
    else:
        sys.stdout.write(reference() + "\n")
