"""The command line as a user meets it: help at once, every mistake with its place, no traceback, the right exit code."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

CARD = Path(__file__).resolve().parents[2] / "benchmarks" / "matrices" / "card.yaml"
QUICKSTART = Path(__file__).resolve().parents[2] / "benchmarks" / "matrices" / "quickstart.yaml"


def diffbench(*arguments, cwd=None, environment=None):
    import os

    return subprocess.run([sys.executable, "-m", "diffbench", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300,
                          env={**os.environ, **(environment or {})})


def test_help_takes_less_than_half_a_second():
    """Processor time of the whole process, the fastest of five: the wall clock of a busy machine measures its neighbours."""
    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
    seconds = []
    for _ in range(5):
        before = spent()
        done = diffbench("--help")
        seconds.append(spent() - before)
    assert done.returncode == 0 and all(command in done.stdout for command in ("run", "plan", "list", "show"))
    assert min(seconds) < 0.5


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("watch", "nowhere"),
                                       *((name, "--help") for name in ("run", "bench", "export", "import", "gc", "doctor"))])
def test_neither_torch_nor_pandas_is_imported_for(arguments):
    code = ("import sys\nfrom diffbench.cli import main\ntry:\n    main(" + repr(list(arguments)) + ")\nexcept SystemExit: pass\n"
            "assert not {'torch', 'pandas'} & set(sys.modules), 'heavy'")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_plan_imports_torch_and_nothing_heavy_besides():
    """What is imported, not how long it takes: exact, and the reason why `plan` takes little longer than `import torch`."""
    code = ("import sys, torch\nbefore = set(sys.modules)\nfrom diffbench.cli import main\n"
            f"try:\n    main(['plan', {str(CARD)!r}])\nexcept SystemExit as end: assert not end.code\n"
            "ours = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
            "print('ours', *sorted(name for name in ours if not name.startswith('_')))\n"
            "print('torch', *sorted(name for name in set(sys.modules) - before if name.startswith(('torch.', 'numpy.'))))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, ours, torchs = (line.split() for line in done.stdout.splitlines())
    assert set(ours[1:]) <= {"annotated_types", "click", "diffbench", "diffbench_components", "pluggy", "pydantic", "pydantic_core", "ruamel",
                             "typing_extensions", "typing_inspection"}
    assert torchs == ["torch"], "no part of torch or numpy that `import torch` leaves out"


def test_a_comparison_of_two_versions_imports_no_torch_itself():
    """Its processes do, one pair after another."""
    code = "import sys, benchmarks.speed.twice, benchmarks.speed.other_version\nassert not {'torch', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_list_names_every_built_in_with_its_first_line():
    done = diffbench("list", "--json")
    found = json.loads(done.stdout)
    names = {(c["kind"], c["name"]) for c in found["components"]}
    assert {("scheduler", "ddpm"), ("scheduler", "pndm"), ("backbone", "unet"), ("backbone", "dit"), ("dataset", "digits"), ("metric", "fid")} <= names
    assert all(c["summary"] for c in found["components"]) and not found["problems"]
    assert "ddim(steps=50, eta=0.0)" in diffbench("list", "scheduler").stdout


def test_show_gives_options_ranges_meaning_and_claims():
    shown = diffbench("show", "scheduler", "ddim").stdout
    assert "eta: a number in [0, 1], default 0.0" in shown and "share of the ancestral noise" in shown
    assert "arXiv:2010.02502" in shown and "order of convergence: 1" in shown
    assert "[sampling only" in diffbench("show", "conditioning", "cfg").stdout
    assert "terminal SNR: 4.04e-05" in diffbench("show", "noise-schedule", "linear").stdout


@pytest.mark.parametrize(("arguments", "said"), [
    (("show", "scheduler", "diim"), "Did you mean 'ddim'?"),
    (("show", "samplers", "ddim"), "no kind of component named 'samplers'"),
    (("list", "schedulers"), "Did you mean 'scheduler'?"),
    (("run", "nowhere.yaml"), "nowhere.yaml: the file cannot be read"),
    (("run",), "Missing argument"),
    (("rnu", "x"), "No such command"),
    (("plan", QUICKSTART, "--device", "cuda:99"), "the device 'cuda:99' is not there"),
    (("plan", QUICKSTART, "--device", "tpu"), "a device is auto, cpu, cuda or cuda:N, got 'tpu'"),
    (("plan", QUICKSTART, "--set", "train.steps=lots"), "steps must be an integer >= 0"),
    (("plan", QUICKSTART, "--plugin", "nowhere.py"), "there is no such file"),
    (("gc",), "there is no store at"),
    (("gc", "--older-than", "soon"), "--older-than is a duration such as 90m, 12h or 7d, got 'soon'"),
    (("doctor", "--store"), "there is no store at"),
    (("export", "nowhere", "--to", "x.zip"), "nowhere/plan.json is not there: give the folder of a run"),
    (("import", "nowhere.zip"), "nowhere.zip cannot be read: No such file"),
    (("import", QUICKSTART), "it is no whole zip file"),
    (("plan", QUICKSTART, "--only", "color=red"), "--only 'color=red': no cell has 'color'. Known: autoencoder, backbone, "),
    (("run", QUICKSTART, "--tracker", "tensorbord"), "no tracker named 'tensorbord'. Did you mean 'tensorboard'?"),
    (("watch", "nowhere"), "nowhere: there is no such folder; name the folder of a run"),
    (("watch", "."), ". is not the folder of a run: it holds no plan.json"),
])
def test_a_wrong_request_gets_a_sentence_and_exit_code_2(arguments, said, tmp_path):
    done = diffbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_every_mistake_of_a_file_is_told_and_nothing_is_run(tmp_path):
    (tmp_path / "matrix.yaml").write_text(QUICKSTART.read_text().replace("- ddim: {steps: 20}", "- dimm: {steps: 20}", 1).replace("train: {steps: 1000", "train: {steps: -1000"))
    done = diffbench("run", "matrix.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "matrix.yaml:" in done.stderr and "Did you mean 'ddim'?" in done.stderr and "steps must be an integer >= 0, got -1000" in done.stderr
    assert "2 mistakes; nothing was run." in done.stderr
    assert not (tmp_path / "runs").exists() and not (tmp_path / ".diffbench").exists()


def test_debug_gives_the_traceback(tmp_path):
    assert "Traceback" in diffbench("--debug", "run", "nowhere.yaml", cwd=tmp_path).stderr


def test_plan_tells_what_is_shared(tmp_path):
    done = diffbench("plan", QUICKSTART, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["cells"] >= 33 and found["stages"]["train"] == 5
    assert found["train_steps"] * 8 == found["train_steps_if_every_cell_were_trained_alone"]
    text = diffbench("plan", QUICKSTART, cwd=tmp_path).stdout
    assert "cells that differ only in sampling share a training" in text


@pytest.mark.slow
def test_smoke_walks_the_quickstart(tmp_path, shared_folder):
    """One of its two noise schedules, to spare a minute; the untrained cell is equal to another one at two steps."""
    done = diffbench("run", QUICKSTART, "--smoke", "--set", "axes.noise_schedule=linear", "--device", "cpu", cwd=tmp_path, environment={"DIFFBENCH_HOME": str(shared_folder / "store")})
    assert done.returncode == 0, done.stderr
    assert "16 ok" in done.stdout
    out = tmp_path / "runs" / "quickstart-smoke"
    assert len(list((out / "samples").glob("*.png"))) == 16
    assert "euler_sde" in (out / "fid.md").read_text() and "euler_sde" in (out / "throughput.md").read_text()


class TestCheck:
    def test_a_good_component_is_counted_and_what_does_not_apply_has_a_reason(self):
        done = diffbench("check", "spacing", "leading", "-v")
        assert done.returncode == 0 and "passed  leading decreases strictly to the clean level of linear" in done.stdout
        assert "not applicable  leading decreases strictly to the clean level of vp: leading spacing strides over grid points, and vp is continuous" in done.stdout
        assert "in all 18 passed, 5 not applicable" in done.stdout

    def test_a_bad_one_fails_with_a_sentence(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from dataclasses import dataclass\nimport torch, diffbench\n@diffbench.register\n@dataclass(frozen=True, kw_only=True)\n"
            "class Upwards(diffbench.Spacing):\n    'Wrong.'\n    def __call__(self, schedule, steps):\n"
            "        return torch.linspace(0, 1, steps + 1, dtype=torch.float64)\n")
        done = diffbench("check", "upwards", "--plugin", tmp_path / "mine.py")
        lines = done.stdout.splitlines()
        assert lines[0].startswith("spacing upwards: ") and lines[1].strip().startswith("failed"), (
            "a failure stands below its component"
        )
        assert done.returncode == 1 and "failed  upwards decreases strictly to the clean level of linear: 1 steps are [0.0, 1.0]" in done.stdout
        found = json.loads(diffbench("check", "upwards", "--json", "--plugin", tmp_path / "mine.py").stdout)
        assert len([r for r in found if r["status"] == "failed"]) == 18 == len([r for r in found if r["statement"].startswith("decreases")])
        assert "its class: " + str(tmp_path / "mine.py") + ":" in done.stdout

    def test_an_unknown_name_is_refused(self):
        done = diffbench("check", "no-such")
        assert done.returncode == 2 and "there is no component, kind or package named 'no-such'; `diffbench list`" in done.stderr


def test_show_gives_presets_and_terminal_levels():
    assert "preset ddpm_cifar10: channels 128" in diffbench("show", "backbone", "unet").stdout
    shown = diffbench("show", "noise-schedule", "rectified_flow").stdout
    assert "terminal SNR: 0" in shown and "alpha 0, sigma 1" in shown
