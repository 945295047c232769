from pathlib import Path

from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.spec import read_spec


def test_a_first_run_spec_is_one_that_can_be_run_and_is_never_written_over_another(tmp_path: Path):
    path = tmp_path / "mine.toml"
    assert CliRunner().invoke(app, ["init", str(path)]).exit_code == 0
    spec = read_spec(path, {})
    assert spec.network.is_file()
    assert Path(spec.data).is_dir()
    assert (spec.max_usd, spec.settings.epochs) == (5, 10)
    before = path.read_bytes()
    again = CliRunner().invoke(app, ["init", str(path)])
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
    assert path.read_bytes() == before


def test_every_key_that_a_first_run_spec_comments_out_is_a_key(tmp_path: Path):
    path = tmp_path / "mine.toml"
    CliRunner().invoke(app, ["init", str(path)])
    lines = [line.removeprefix("# ") if " = " in line else line for line in path.read_text().splitlines()]
    # What goes straight to the machine lies at a URL.
    lines = ['data = "https://example.org/ratings.csv"' if line.startswith("data = ") else line for line in lines]
    path.write_text("\n".join(lines).replace('"..."', f'"{"0" * 64}"'))
    # Types are named or needed, not both.
    elsewhere = {"settings", "gpus", "gpu_memory_gib"}
    spec = read_spec(path, {})
    assert spec.model_dump(exclude=elsewhere).keys() == spec.model_fields_set - elsewhere
