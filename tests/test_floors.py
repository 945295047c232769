"""The floors: who may import whom, held by import-linter as pyproject.toml states it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINTER = Path(sys.executable).with_name("lint-imports")


def test_no_file_imports_sideways_or_upwards():
    done = subprocess.run(
        [str(LINTER), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_function_is_longer_than_fifty_lines_nor_file_than_four_hundred():
    import ast

    stories = {"run.py", "train.py"}
    too_long: list[str] = []
    for path in [*ROOT.glob("orchestrator/**/*.py"), *ROOT.glob("trainer/**/*.py")]:
        source = path.read_text(encoding="utf-8")
        if len(source.splitlines()) > 400:
            too_long.append(f"{path.relative_to(ROOT)}: {len(source.splitlines())} lines")
        limit = 80 if path.name in stories else 50
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > limit:
                    too_long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not too_long, "\n".join(too_long)
