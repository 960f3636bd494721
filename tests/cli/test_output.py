"""What the command line writes: no letter of a name or a path acts on a terminal, no reader that goes away and no closed stream changes how a command ends."""

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffbench import cli
from diffbench.cli import output
from diffbench.process import interrupts
from diffbench.wording import brief, one_line, printable

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "benchmarks" / "matrices" / "quickstart.yaml"
# ESC, BEL, CSI as one letter, delete, return, no-break space, zero width, marks of direction, line ends of Unicode, a byte that is no text.
HOSTILE = "\x1b]0;x\x07\x9b2J\x7f\r\x08\xa0\u200b\u200e\u202e\u2066\u2028\u2029\ufeff\udce9"
HARMLESS = "ü → 拡散 \U0001f600"
# What writes by itself, and why: it runs in a worker, whose streams are its log.
LOGS = {"wrappers.py", "checkpoints.py", "worker.py"}


def command(*arguments, expected=None):
    """(exit code, what was written to both streams)."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.setattr(interrupts, "install", lambda: None)
        with pytest.raises(SystemExit) as end:
            cli.main(list(map(str, arguments)))
    assert expected is None or end.value.code == expected, said.getvalue()
    return end.value.code, said.getvalue()


def is_clean(text):
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


def test_whatever_acts_on_a_terminal_is_shown_as_an_escape():
    assert printable(HOSTILE) == ("\\x1b]0;x\\x07\\x9b2J\\x7f\\x0d\\x08\\xa0\\u200b\\u200e\\u202e\\u2066\\u2028\\u2029\\ufeff\\udce9")
    assert printable(f"{HARMLESS}\n\tb") == f"{HARMLESS}\n\tb" and one_line(f"{HARMLESS}\n\t\x1bb") == f"{HARMLESS} \\x1bb"
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert is_clean(printable(every)) and printable(printable(every)) == printable(every)


def test_a_long_value_is_cut():
    assert brief("x" * 10**7) == "'" + "x" * 96 + "..." and brief([1, 2]) == "[1, 2]" and brief(10**5000) == "an integer of 16,610 bits"


def test_there_is_one_writer():
    """No other module of the command line or the harness prints; tests, templates and logs of workers apart."""
    found = []
    for path in (ROOT / "diffbench").rglob("*.py"):
        inside = path.relative_to(ROOT / "diffbench")
        if inside.parts[0] in ("testing", "scaffold") or path.name in LOGS or inside == Path("cli/output.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "click.echo", "click.secho", "echo", "Console") or called.endswith(("stdout.write", "stderr.write")):
                found.append(f"{inside}:{node.lineno}: {called}")
    assert not found, "say it by diffbench.cli.output: " + ", ".join(found)


def test_every_path_of_the_command_line_may_begin_with_a_tilde():
    found = [f"{path.name}:{node.lineno}" for path in (ROOT / "diffbench" / "cli").glob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.Path", "click.File")]
    assert not found, "its type is cli.common.UserPath: " + ", ".join(found)


@pytest.mark.parametrize("name", ["why", "key", "component", "value", "name", "path", "set", "only"])
def test_a_hostile_matrix(name, tmp_path, monkeypatch):
    """YAML that spells its letters as escapes, as a matrix from a stranger may."""
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    data = {"diffbench": 1, "name": "small", "dataset": "digits", "axes": {"backbone": "unet", "scheduler": ["ddim", "ddpm"]}, "metrics": ["fid"]}
    more = []
    match name:
        case "why":
            data["exclude"] = [{"scheduler": "ddpm", "why": HOSTILE[:-1]}]
        case "key":
            data[HOSTILE[:-1]] = 1
        case "component":
            data["axes"]["scheduler"] = [{HOSTILE[:-1]: {"steps": 3}}]
        case "value":
            data["train"] = {"steps": HOSTILE[:-1]}
        case "name":
            data["name"] = HOSTILE[:-1]
        case "path":
            data["dataset"] = {"image_folder": {"path": HOSTILE[:-1].replace("\0", "")}}
        case "set":
            more = ["--set", f"train.{HOSTILE}=3"]
        case "only":
            more = ["--only", f"{HOSTILE}=3"]
    path = tmp_path / f"m{HOSTILE}.yaml"
    path.write_text(json.dumps(data))
    code, said = command("plan", path, *more)
    assert code == (0 if name == "why" else 2) and is_clean(said) and "]0;x" in said
    if name == "why":
        code, said = command("plan", path, "--json", expected=0)
        assert json.loads(said)["excluded"][0]["why"] == HOSTILE[:-1] and said.isascii() and is_clean(said)


PLUGIN = '''
from dataclasses import dataclass
import diffbench
print("\\x1b]0;printed\\x07")
@diffbench.register
@dataclass(frozen=True, kw_only=True)
class Strange(diffbench.Spacing):
    "First \\x1b[2J line \\u202e.\\n\\nMore \\x9b."
    word: str = "\\x1b[31m"     # meaning \x1b[1m
    def __call__(self, schedule, steps):
        raise ValueError("\\x1b[2J \\udce9")
'''


@pytest.mark.parametrize("arguments", [("list", "spacing"), ("show", "spacing", "strange"), ("check", "strange", "--quick"), ("list", f"x{HOSTILE}"), ("show", "spacing", HOSTILE),
                                       ("check", HOSTILE), (f"x{HOSTILE}",), ("plan", f"x{HOSTILE}"), ("run", "x.yaml", f"--{HOSTILE}"), ("compare", f"x{HOSTILE}", "a"),
                                       ("watch", HOSTILE), ("report", HOSTILE), ("export", HOSTILE, "--to", "x"), ("import", HOSTILE), ("rerun", HOSTILE, "a"),
                                       ("gc", "--older-than", HOSTILE), ("new", "spacing", HOSTILE), ("--debug", "plan", HOSTILE), ("doctor",)], ids=lambda a: a[0])
def test_hostile_names_of_plug_ins_and_arguments(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.py").write_text(PLUGIN)
    more = ("--plugin", "strange.py") if arguments[0] in ("list", "show", "check", "doctor") else ()
    _, said = command(*arguments, *more)
    assert said and is_clean(said)


def test_hostile_records_of_a_run(tmp_path):
    from tests.results.test_comparing import row, run

    made = run(tmp_path, [row("a0", 1.0), row("c0", 3.0, scheduler="heun", reason=HOSTILE[:-1])])
    plan = json.loads((Path(made.folder) / "plan.json").read_text())
    (Path(made.folder) / "plan.json").write_text(json.dumps(plan).replace("heun", json.dumps(HOSTILE[:-1])[1:-1]))
    for arguments in (("compare", made.folder, "a0", "c0"), ("compare", made.folder, "scheduler=x"), ("compare", made.folder, "scheduler=ddim", f"scheduler={HOSTILE}")):
        assert is_clean(command(*arguments)[1])


class Gone(io.StringIO):
    """A stream whose reader has gone, or whose disk is full."""

    def __init__(self, error):
        super().__init__()
        self.failing = error

    def write(self, text):
        raise self.failing


def test_a_reader_that_goes_changes_nothing_and_a_full_disk_is_named(monkeypatch):
    for error, code, words in ((BrokenPipeError(32, "Broken pipe"), 0, ""), (OSError(28, "No space left on device"), 1, "standard output cannot be written: No space left")):
        said = io.StringIO()
        monkeypatch.setattr(sys, "stdout", Gone(error))
        monkeypatch.setattr(sys, "stderr", said)
        monkeypatch.setattr(interrupts, "install", lambda: None)
        with pytest.raises(SystemExit) as end:
            cli.main(["list", "spacing"])
        monkeypatch.undo()
        assert end.value.code == code and words in said.getvalue() and bool(words) == bool(said.getvalue())


def test_letters_that_an_encoding_has_not_are_escapes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.say(HARMLESS)
    assert raw.getvalue() == b"\\xfc \\u2192 \\u62e1\\u6563 \\U0001f600\n"


def started(*arguments, cwd, **options):
    return subprocess.Popen([sys.executable, "-m", "diffbench", *map(str, arguments)], cwd=cwd, env={**os.environ, "DIFFBENCH_HOME": str(cwd / "home")}, **options)


@pytest.mark.parametrize("arguments", [("list", "--json"), ("plan", QUICKSTART), ("--help",)], ids=lambda a: a[0])
def test_piped_to_head(arguments, tmp_path):
    process = started(*arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()                                # before anything is written: `| head -0`
    assert (process.stderr.read(), process.wait()) == (b"", 0)


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams(closed, tmp_path):
    for arguments, code in (("list spacing", 0), ("plan nowhere.yaml", 2)):
        assert subprocess.run(["bash", "-c", f"{sys.executable} -m diffbench {arguments} {closed}"], cwd=tmp_path, timeout=300).returncode == code


def test_missing_descriptors_are_opened_and_given_on():
    code = ("import os, sys\nfor d in (0, 1, 2): os.close(d)\nsys.stdin = sys.stdout = sys.stderr = None\n"
            "from diffbench.process.standard_streams import open_missing\nopen_missing()\n"
            "assert os.open('/dev/null', os.O_RDONLY) > 2 and all(os.get_inheritable(d) for d in range(3))\n"
            "print('x'), sys.stderr.write('y')\nassert sys.stdin.read() == ''")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


SMALL = """\
diffbench: 1
name: small
dataset: {gaussian_mixture: {size: 8}}
extractor: pixels
axes: {backbone: {unet: {channels: 8, multipliers: [1], blocks: 1}}, scheduler: {ddim: {steps: 2}}}
train: {steps: 2, batch_size: 8}
sample: {count: 40}
metrics: sliced_wasserstein
throughput: {repeats: 3, batch_size: 2}
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["| head -1", "<&- >&- 2>&-", "2>&1 | head -1"])
def test_a_run_is_whole_whoever_listens(ending, tmp_path):
    (tmp_path / "m.yaml").write_text(SMALL)
    line = f"{sys.executable} -m diffbench run m.yaml --out r --device cpu {ending}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env={**os.environ, "DIFFBENCH_HOME": str(tmp_path / "home")}, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0 and "rror" not in done.stderr, done.stderr        # the lines of its progress are no errors
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "r" / "cells").glob("*.json"))
    assert record["status"] == "ok" and (tmp_path / "r" / "report.html").is_file()
