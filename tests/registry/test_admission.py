"""Plug-in hygiene: each fault is named with its distribution, costs nobody else anything, and what is blocked stays out."""

import json
import re
import subprocess
import sys

import pytest

import diffbench
from diffbench.cli import COMMANDS
from diffbench.errors import BrokenComponent
from diffbench.registry import admission
from diffbench.registry.registry import Registry, load_registry
from tests.registry.test_registry import SCHEDULER, distribution


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs distributions as files and gives the registry that finds them."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, entry_points, modules, requires=()):
        distribution(tmp_path, name, entry_points, modules)
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info" / "METADATA"
        info.write_text(info.read_text() + "".join(f"Requires-Dist: {line}\n" for line in requires))
        return Registry
    return install


def said(registry, whose):
    """The one thing said of a distribution."""
    (message,) = [p.message for p in registry.problems if p.distribution.partition(":")[0] == whose]
    return message


HOOKS = "from diffbench import hookimpl\n"


@pytest.mark.parametrize(("source", "message"), [
    (HOOKS + "@hookimpl\ndef diffbench_rov_added(row): pass\n", "there is no hook 'diffbench_rov_added'. Did you mean 'diffbench_row_added'?"),
    (HOOKS + "@hookimpl\ndef diffbench_row_added(raw): pass\n",
     "its diffbench_row_added asks for 'raw', which the hook does not give. Did you mean 'row'? It gives: row, folder"),
    ("def diffbench_row_added(row): pass\n", "diffbench_row_added is never called: write @diffbench.hookimpl above it"),
    ("import time\ntime.sleep(1.1)\n", "s to import, and every command waits for it: import what is heavy inside the functions of mis_hooks"),
    ("import a_module_nobody_has\n", "ModuleNotFoundError: No module named 'a_module_nobody_has'; mis-hooks does not declare it as a dependency"),
    (HOOKS + "@hookimpl\ndef diffbench_components(kinds): return [7]\n", "its hook diffbench_components gives diffbench.Refs, got 7"),
    (HOOKS + "@hookimpl\ndef diffbench_components(kinds):\n    1 / 0\n    yield\n", "what its hook diffbench_components gave cannot be read: ZeroDivisionError"),
    (HOOKS + "from diffbench import Ref\n@hookimpl\ndef diffbench_components(kinds):\n"
     "    return [Ref(kind='schedular', name='x', target='m:X', distribution='mis-hooks')]\n", "no kind named 'schedular'. Did you mean 'scheduler'?"),
    (HOOKS + "from diffbench import Kind\n@hookimpl\ndef diffbench_kinds():\n    return [Kind(name='metric', base='m:X', half='measuring', summary='', axis=False)]\n",
     "the kind 'metric' of plug-in mis-hooks:hooks is left out: there is one of that name already"),
], ids=range(9))
def test_hooks_that_are_wrong_are_named_with_what_would_be_right(installed, monkeypatch, source, message):
    monkeypatch.delitem(sys.modules, "mis_hooks", raising=False)
    registry = installed("mis-hooks", "[diffbench]\nhooks = mis_hooks\n", {"mis_hooks": source})()
    assert message in said(registry, "mis-hooks")
    assert registry.create("scheduler", "ddim").steps == 50, "others are not touched"


def test_a_heavy_import_of_hooks_is_named_however_fast(installed, monkeypatch, tmp_path):
    monkeypatch.setattr(admission, "HEAVY", ("a_heavy_library",))
    (tmp_path / "a_heavy_library.py").write_text("")
    registry = installed("heavy-hooks", "[diffbench]\nhooks = heavy_hooks\n", {"heavy_hooks": "import a_heavy_library\n"})()
    assert said(registry, "heavy-hooks").startswith("plug-in heavy-hooks:hooks imports a_heavy_library (0.0 s), and every command waits for it")


def test_a_group_that_nobody_reads_is_named(installed):
    registry = installed("mis-grouped", "[diffbench.schedulers]\ntwin = mod:Twin\n", {})()
    assert said(registry, "mis-grouped").startswith(
        "mis-grouped has entry points of the group 'diffbench.schedulers', which nobody reads. Did you mean 'diffbench.scheduler'? Groups are: diffbench, ")


def test_a_missing_dependency_is_told_from_one_that_is_not_declared(installed):
    make = installed("needy", "[diffbench.scheduler]\nneedy = needy_mod:Twin\n", {"needy_mod": "import a_module_nobody_has\n" + SCHEDULER},
                     requires=["A_module.nobody-has>=2; python_version > '3'"])
    with pytest.raises(diffbench.BrokenComponent, match=r"'needy\.needy' of needy 1\.0 .*No module named 'a_module_nobody_has'; needy declares it: pip install --force"):
        make().create("scheduler", "needy")


def test_a_slow_import_is_named(installed, monkeypatch):
    monkeypatch.setattr("diffbench.registry.registry.SLOW_COMPONENT_SECONDS", 0.05)
    registry = installed("sluggish", "[diffbench.scheduler]\ntwin = sluggish_mod:Twin\n", {"sluggish_mod": "import time\ntime.sleep(0.06)\n" + SCHEDULER})()
    for _ in range(2):
        registry.create("scheduler", "sluggish.twin")
    assert re.search(r"scheduler sluggish\.twin of sluggish 1\.0: importing sluggish_mod takes \d+\.\d+ s", said(registry, "sluggish"))


@pytest.mark.parametrize(("declared", "reason"), [
    ("v1 = new_mod", None), ("v1 = new_mod\nv2 = new_mod", None),
    ("v2 = new_mod", "newer is left out: it is written for version 2 of the plug-in interface, and this diffbench has version 1: upgrade diffbench"),
    ("one = new_mod", "newer declares 'one' as its version of the plug-in interface; write v1 under 'diffbench.api'"),
])
def test_the_version_of_the_interface_is_declared_and_checked(installed, declared, reason):
    registry = installed("newer", f"[diffbench.api]\n{declared}\n[diffbench.scheduler]\ntwin = new_mod:Twin\n[diffbench]\nhooks = new_hooks\n",
                         {"new_mod": SCHEDULER, "new_hooks": HOOKS + "@hookimpl\ndef diffbench_environment(): return {'newer': 1}\n"})()
    is_in = reason is None or "declares" in reason
    assert {"newer": 1} in registry.answers("diffbench_environment") or not is_in
    assert ("newer.twin" in [r.full_name for r in registry.refs("scheduler")]) == is_in
    assert [p.message for p in registry.problems] == ([reason] if reason else [])
    if not is_in:
        with pytest.raises(diffbench.UnknownComponent, match=r"newer offers it, and is left out: it is written for version 2"):
            registry.find("scheduler", "twin")


def test_an_old_plug_in_is_told_to_upgrade_itself(installed, monkeypatch):
    monkeypatch.setattr(admission, "API", 4)
    monkeypatch.setattr(admission, "OLDEST_API", 3)
    registry = installed("older", "[diffbench.api]\nv2 = old_mod\n", {})()
    assert said(registry, "older").endswith("version 2 of the plug-in interface, and this diffbench has versions 3 to 4: upgrade older")


def test_a_blocked_plug_in_stays_out_with_all_it_has(installed, monkeypatch, tmp_path):
    make = installed("noisy-pack", "[diffbench.scheduler]\ntwin = noisy_mod:Twin\n[diffbench]\nhooks = noisy_hooks\n[diffbench.tracker]\nnoisy = noisy_hooks\n",
                     {"noisy_mod": SCHEDULER, "noisy_hooks": "raise SystemExit('imported')\n"})
    monkeypatch.setenv("DIFFBENCH_BLOCK", "Noisy_Pack")
    registry = make()
    assert not registry.problems and registry.kept_out == {"noisy-pack": "it is blocked by DIFFBENCH_BLOCK"}
    with pytest.raises(diffbench.UnknownComponent, match=r"noisy-pack offers it, and is left out: it is blocked by DIFFBENCH_BLOCK"):
        registry.find("scheduler", "noisy-pack.twin")
    from diffbench.registry import offered
    with pytest.raises(diffbench.DiffbenchError, match=r"no tracker named 'noisy'\..*noisy-pack offers it, and is left out"):
        offered.find("tracker", "noisy")
    monkeypatch.setenv("DIFFBENCH_BLOCK", "noisy-peck")
    monkeypatch.setitem(sys.modules, "noisy_hooks", sys)          # not blocked, it would be imported
    assert said(Registry(), "DIFFBENCH_BLOCK") == "DIFFBENCH_BLOCK names 'noisy-peck', and no plug-in of that name is installed. Did you mean 'noisy-pack'?"


@pytest.mark.parametrize("name", ["run", "night"])
def test_two_commands_of_one_name_are_named_and_the_first_stands(installed, tmp_path, name):
    """Once the harness's own, once that of another plug-in."""
    command = f"import click\n{HOOKS}@hookimpl\ndef diffbench_commands(cli):\n    cli.add_command(click.Command({name!r}, callback=lambda: click.echo(__name__)))\n"
    for whose in ("a", "b"):
        installed(f"{whose}-commands", f"[diffbench]\nhooks = {whose}_commands\n", {f"{whose}_commands": command})
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from diffbench.cli import main; main(['--help'])"],
                          capture_output=True, text=True, check=True)
    assert f"plug-in b-commands:hooks is switched off: its hook diffbench_commands raised DiffbenchError: there is a command '{name}' already" in done.stderr
    assert ("a-commands" in done.stderr) == (name in COMMANDS) and done.stdout.count(f"\n  {name}") == 1


def test_list_tells_programs_what_is_there_what_is_wrong_and_what_is_left_out(installed, tmp_path):
    installed("newer", "[diffbench.api]\nv9 = new_mod\n[diffbench.scheduler]\ntwin = new_mod:Twin\n", {"new_mod": SCHEDULER})
    installed("older", "[diffbench.scheduler]\ntwin = old_mod:Twin\n", {"old_mod": SCHEDULER})
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from diffbench.cli import main; main(['list', 'scheduler', '--json'])"
    told = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert {"kind": "scheduler", "name": "older.twin", "origin": "older 1.0", "target": "old_mod:Twin", "summary": "Twin.", "options": {"steps": "5"},
            "editable": False, "aliases": [], "default": False} in told["components"]
    assert "newer.twin" not in [c["name"] for c in told["components"]]
    assert [o["distribution"] for o in told["left_out"]] == ["newer"] == [p["distribution"] for p in told["problems"]]


def test_a_loose_file_that_is_no_python_is_refused(tmp_path):
    (tmp_path / "plug.txt").write_text("x = 1\n")
    with pytest.raises(BrokenComponent, match=r"this is no file of Python source; its name must end in \.py"):
        load_registry([str(tmp_path / "plug.txt")])
