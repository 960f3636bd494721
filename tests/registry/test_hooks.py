"""The hooks of a plug-in package, heard in a real run."""

import json
import sys

import diffbench
from diffbench.registry.registry import Registry
from tests.registry.test_registry import distribution
from tests.running.test_engine import MATRIX

HOOKS = """
import click
from diffbench import hookimpl
from diffbench.registry.kinds import Kind
heard = []
@hookimpl
def diffbench_modify_plan(plan):
    plan.skip(plan.cells[0].cell_id, "the first cell is never run here")
@hookimpl
def diffbench_row_added(row):
    heard.append(row["status"])
@hookimpl
def diffbench_environment():
    return {"queue": "night"}
@hookimpl
def diffbench_kinds():
    return [Kind(name="sink", base="diffbench.contracts.component:Component", half="measuring", summary="where rows go", axis=False)]
@hookimpl
def diffbench_commands(cli):
    cli.add_command(click.Command("hello", callback=lambda: click.echo("hello from a plug-in"), help="Says hello."))
"""


def test_a_plug_in_changes_plans_hears_rows_adds_facts_kinds_and_commands(tmp_path, monkeypatch, capsys):
    distribution(tmp_path, "night-pack", "[diffbench]\nhooks = night_hooks\n", {"night_hooks": HOOKS})
    monkeypatch.syspath_prepend(tmp_path)
    assert "sink" in Registry().kinds
    content = {**MATRIX, "axes": {**MATRIX["axes"], "conditioning": "none", "scheduler": [{"ddim": {"steps": 2}}]}, "metrics": []}
    done = diffbench.run(content, out=tmp_path / "out", device="cpu")
    assert done.counts == {"skipped": 1} and sys.modules["night_hooks"].heard == ["skipped"]
    assert json.loads((tmp_path / "out" / "environment.json").read_bytes())["queue"] == "night"
    assert diffbench.load(tmp_path / "out")["reason"].tolist() == ["the first cell is never run here"]

    from diffbench.cli import cli, main
    try:
        main(["hello"])
    except SystemExit as end:
        assert end.code == 0
    finally:
        cli.commands.pop("hello", None)
    assert "hello from a plug-in" in capsys.readouterr().out
