"""Every notebook in reports/ runs on a results file, and is stored without outputs."""

import json
from pathlib import Path

import pytest

from diffbench import results

REPORTS = Path(__file__).resolve().parents[1] / "reports"


def rows():
    """Rows as a run writes them: ok, skipped and failed, values where they were measured."""
    made = []
    for backbone in ("unet", "dit"):
        for index, (scheduler, steps) in enumerate((("ddpm", 50), ("ddim", 20), ("pndm", 10))):
            for scale in (1.5, 3.0):
                made.append({"cell_id": f"{backbone}{index}{scale}", "status": "ok", "reason": "", "dataset": "digits", "backbone": backbone, "noise_schedule": "linear",
                             "parameterization": "epsilon", "objective": "mse", "conditioning": "cfg", "spacing": "uniform", "scheduler": scheduler, "steps": steps,
                             "guidance_scale": scale, "conditioning.scale": scale, "seed": 0, "nfe": 2.0 * steps, "train_steps": 800,
                             "sample_images_per_second": 1000 / steps, "fd_dataset_classifier": 5 + index * scale, "fd_dataset_classifier_debiased": 4.5,
                             "fd_dataset_classifier_low": 4.0, "fd_dataset_classifier_high": 5.0, "class_accuracy": 0.95})
    made.append({"cell_id": "skipped", "status": "skipped", "reason": "no socket", "backbone": "dit", "scheduler": "ddim", "steps": 20, "seed": 0})
    return made


@pytest.mark.parametrize("notebook", sorted(REPORTS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_runs_on_a_results_file(notebook, tmp_path):
    import nbclient
    import nbformat

    results.frame(rows()).to_parquet(tmp_path / "results.parquet")
    content = nbformat.read(notebook, as_version=4)
    parameters = next(c for c in content.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source = f"RESULTS = {str(tmp_path)!r}"
    done = nbclient.NotebookClient(content, timeout=120, resources={"metadata": {"path": str(REPORTS)}}).execute()
    outputs = [o for c in done.cells if c.cell_type == "code" for o in c.outputs]
    assert any("text/html" in o.get("data", {}) for o in outputs), "tables are shown"
    assert any("image/png" in o.get("data", {}) for o in outputs), "a figure is shown"


@pytest.mark.parametrize("notebook", sorted(REPORTS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_is_stored_without_outputs(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_the_figures_need_pandas_and_matplotlib_only():
    import ast

    imported = {node.module or "" if isinstance(node, ast.ImportFrom) else alias.name for node in ast.walk(ast.parse((REPORTS / "figures.py").read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    assert {name.partition(".")[0] for name in imported} <= {"pandas", "matplotlib", "pathlib", "__future__"}
