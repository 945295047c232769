"""What the documents promise: the command reference is the program's own, the map is the tree, every
link leads somewhere, and the changelog opens with what is not released yet.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import reference  # noqa: E402 -- lies beside this file


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_readme_shows_the_help_that_the_programs_give():
    readme = text_of("README.md")
    assert reference.with_reference(readme) == readme, "run `make fix`"


def test_the_map_in_contributing_is_the_tree():
    mapped = set(re.findall(r"^\| `((?:orchestrator|trainer)/[\w/.]+\.py)`", text_of("CONTRIBUTING.md"), re.MULTILINE))
    there = {
        str(path.relative_to(ROOT))
        for package in ("orchestrator", "trainer")
        for path in (ROOT / package).glob("**/*.py")
        if path.name != "__init__.py"
    }
    assert mapped == there, f"only in the map: {mapped - there}; only in the tree: {there - mapped}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_relative_links_lead_somewhere(name: str):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text_of(name))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_changelog_opens_with_unreleased():
    headings = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_nothing_committed_names_a_registry_or_a_home_directory():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    needles = re.compile(r"index-url|files\.pythonhosted|pypi\.org/simple|/root/|/home/[a-z]+/\.")
    found: list[str] = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".lock", ".yaml", ".yml", ".sh", ".json"} and path.exists():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if needles.search(line) and "--no-emit-index-url" not in line and path.name != "test_docs.py":
                    found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []
