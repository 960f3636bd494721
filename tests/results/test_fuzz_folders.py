"""Folders of results and archives that somebody changed: whatever looks at them ends with an answer or with a sentence.

500 folders and 60 archives; DIFFBENCH_FUZZ=10000 tries that many of each.
"""

import json
import os
import random
import shutil

import click
import pytest
from click.testing import CliRunner

import diffbench
from diffbench.cli import cli
from diffbench.errors import DiffbenchError
from diffbench.results.exporting import export_run
from diffbench.results.importing import import_run
from diffbench.store.artefacts import Store
from tests.helpers import made_rows
from tests.helpers.mutations import mutant
from tests.helpers.runs import files, make_run
from tests.results.test_importing import rewritten

FOLDERS, ARCHIVES = (int(os.environ.get("DIFFBENCH_FUZZ", default)) for default in (500, 60))
PARTS = 5                             # tests, so that several workers share them
EVENTS = [{"event": "run_started", "name": "made", "host": "h", "pid": 1, "number": 1, "locked": False, "device": "cpu", "versions": {}, "plan": {}},
          {"event": "stage_started", "stage": "sample", "key": "0" * 12, "label": "s", "try": 1},
          {"event": "stage_progress", "stage": "sample", "key": "0" * 12, "done": 1, "of": 2, "figures": {"loss": 0.5}},
          {"event": "stage_finished", "stage": "sample", "key": "0" * 12, "label": "s", "status": "ok", "reason": "", "seconds": 1.0, "cached": False, "tries": 1},
          {"event": "row_added", "cell_id": "000000000000", "status": "ok", "reason": ""}, {"event": "note", "text": "a remark"},
          {"event": "stages_found", "counts": {"train": 1}, "keys": ["0" * 12]}, {"event": "run_finished", "counts": {"ok": 2}}]
COMMANDS = (["compare", "{run}", "scheduler=ddpm", "scheduler=ddim"], ["watch", "{run}", "--once"], ["watch", "{run}", "--once", "--json"],
            ["export", "{run}", "--to", "{run}.zip"], ["compare", "{run}", "{run}"], ["report", "{run}", "--format", "csv", "--format", "md"], ["report", "{run}"])
SHARES = (8, 3, 3, 5, 8, 2, 1)        # a page takes half a second, the others milliseconds


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """A finished run's folder, small enough to be read in milliseconds."""
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    made = made_rows.rows(backbones=("unet",), schedulers=(("ddpm", 50), ("ddim", 20)), scales=(1.5,), seeds=((0, 0), (1, 1)))
    for row in made[:4]:
        row["left_out"] = {made_rows.FD: [row[made_rows.FD] + i / 50 for i in range(20)]}
    run = made_rows.folder(tmp_path / "run", made, pictures=True)
    plan = json.loads((run / "plan.json").read_bytes())
    plan["stages"]["0" * 64] = {"name": "sample", "label": "s", "parents": {}}
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "run.json").write_text(json.dumps({"diffbench": "run", "id": "0" * 32}))
    (run / "matrix.json").write_text(json.dumps({"name": "made", "report": {"rows": ["backbone"], "columns": ["scheduler"], "baseline": "scheduler=ddpm"}}))
    (run / "environment.json").write_text(json.dumps({
        "format": 2, "machine": {"cpu": "some"}, "packages": {"torch": "2"}, "git": {"diffbench": {"commit": "abc", "is_dirty": False}}, "gpus": [],
        "settings": {"tf32": "ieee"}, "memory_bytes": 10**9, "variables": {"OMP": "1"}, "command": ["diffbench", "run"], "python": "3.11",
        "request": {"launcher": "local", "jobs": None, "threads": None, "smoke": False, "plugins": []}}))
    (run / "real.json").write_text(json.dumps({"held_out": {f"digits:{made_rows.FD}": {made_rows.FD: 1.0, f"{made_rows.FD}_low": 0.5, f"{made_rows.FD}_high": 1.5}}, "training": {}}))
    (run / "finished.json").write_text(json.dumps({"made_of": "0" * 64, "files": {}}))
    (run / "events").mkdir()
    lines = [json.dumps({"time": f"2024-01-01T00:00:0{i}Z", "t": float(i), **event}) for i, event in enumerate(EVENTS)]
    (run / "events" / "h-1.jsonl").write_text("\n".join(lines) + "\n")
    return run


def said(run, command):
    """What a command does wrong: an exception that is no sentence, or None."""
    done = CliRunner().invoke(cli, [word.format(run=run) for word in command])
    is_sentence = isinstance(done.exception, DiffbenchError | click.ClickException | SystemExit) or done.exception is None
    return None if is_sentence and done.exit_code in (0, 1, 2) else f"{type(done.exception).__name__}: {done.exception}"


def loaded(path):
    """The same of loading."""
    try:
        diffbench.load(path)
    except DiffbenchError:
        return None
    except Exception as error:  # noqa: BLE001  what a user would see a traceback of
        return f"{type(error).__name__}: {error}"
    return None


def test_the_folder_itself_is_read_by_every_command(whole):
    for command in COMMANDS:
        done = CliRunner().invoke(cli, [word.format(run=whole) for word in command])
        assert done.exit_code in (0, 1) and (done.exception is None or isinstance(done.exception, SystemExit)), (command, done.output, done.exception)
    assert len(diffbench.load(whole)) == 6


@pytest.mark.parametrize("part", range(PARTS))
def test_a_changed_folder_is_an_answer_or_a_sentence(whole, part):
    content = {name: data for name, data in files(whole).items() if not name.startswith(("exports", "report.html"))}
    broken = []
    for seed in range(part, FOLDERS, PARTS):
        rng = random.Random(seed)
        name, (command,) = rng.choice(sorted(content)), rng.choices(COMMANDS, SHARES)
        path = whole / name
        how = rng.random()
        if how < 0.9:
            path.write_bytes(mutant(name, content[name], seed))
        else:
            path.unlink()
            if how > 0.94:
                path.mkdir() if how < 0.97 else path.symlink_to("nowhere")
        found = [what for what in (said(whole, command), loaded(path if name.startswith("results.") else whole)) if what]
        broken += [f"{seed}: {name}, {' '.join(command[:3:2])}: {what}" for what in found]
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(content[name])
        for left in (whole.with_suffix(".zip"), whole / "report.html"):
            left.unlink(missing_ok=True)
        shutil.rmtree(whole / "exports", ignore_errors=True)
    assert not broken, "\n".join(broken[:30])


def test_a_changed_archive_is_refused_or_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("diffbench.store.disk.disk.flush", lambda file: None)
    monkeypatch.setattr("diffbench.store.disk.disk.flush_folder", lambda path: None)
    source = Store(tmp_path / "source")
    make_run(source, tmp_path / "made")
    export_run(tmp_path / "made", source, tmp_path / "run.zip")
    broken, refused = [], 0
    for seed in range(ARCHIVES):
        rng = random.Random(seed)

        def change(members, seed=seed, rng=rng):
            name = rng.choice(sorted(members))
            info, data = members[name]
            members[name] = info, mutant(name, data, seed)
            _mend_manifests(members)
        try:
            rewritten(tmp_path / "run.zip", tmp_path / "bad.zip", change, index=rng.random() < 0.9)
        except (ValueError, AttributeError, TypeError, RecursionError):          # the index itself is the mutant
            continue
        store, out = Store(tmp_path / "victim"), tmp_path / "there"
        try:
            done = import_run(tmp_path / "bad.zip", store, out)
            whole = all(store.has(stage, key) for stage, key in ((p.parts[-3], p.name) for p in (store.root / "store").glob("*/*/*")))
            broken += [] if whole else [f"{seed}: an artefact is not whole"]
            broken += [f"{seed}: {what}" for what in [loaded(done.folder)] if what]
        except DiffbenchError:
            refused += 1
            broken += [f"{seed}: something came"] if out.exists() or list((store.root / "store").rglob("*")) else []
        except Exception as error:  # noqa: BLE001
            broken.append(f"{seed}: {type(error).__name__}: {error}")
        shutil.rmtree(tmp_path / "victim")
        shutil.rmtree(out, ignore_errors=True)
    assert not broken, "\n".join(broken[:30])
    assert refused > ARCHIVES / 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zip", "made", "run.zip", "source"]


def _mend_manifests(members):
    """Makes every manifest match its files, as a stranger would."""
    import hashlib

    for name in [n for n in members if n.endswith("/manifest.json")]:
        try:
            content = json.loads(members[name][1])
            folder = name.removesuffix("manifest.json")
            for file in content["files"]:
                data = members[folder + file][1]
                content["files"][file] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            members[name] = members[name][0], json.dumps(content).encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
