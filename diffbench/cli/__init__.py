"""The command line. `--help` and `list` import neither torch nor pandas:
each command's module is imported when it is called.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

import click

from diffbench.cli import output
from diffbench.errors import DiffbenchError
from diffbench.process import interrupts
from diffbench.process.standard_streams import open_missing

COMMANDS = {
    "run": ("diffbench.cli.run", "Train and sample every combination; write FID and throughput tables."),
    "watch": ("diffbench.cli.watch", "Show a run that goes on elsewhere, live, or what became of it."),
    "plan": ("diffbench.cli.plan", "Show what a run would do, without doing it."),
    "list": ("diffbench.cli.list", "List the components that are installed, importing none of them."),
    "show": ("diffbench.cli.show", "Show one component: options, meaning, source, origin."),
    "check": ("diffbench.cli.check", "Run the conformance suite on components or packages."),
    "compare": ("diffbench.cli.compare", "Say which of two rows or runs is better, and whether the data can tell."),
    "bench": ("diffbench.cli.bench", "Time components, or count what they do and guard the counts."),
    "sample": ("diffbench.cli.sample", "Draw images from the trained model of a row into one picture."),
    "rerun": ("diffbench.cli.rerun", "Make one row of a run again from nothing, and say whether it is the same."),
    "report": ("diffbench.cli.report", "Export a run for papers; copy a notebook to go on in beside it."),
    "export": ("diffbench.cli.export", "Write a run, with its artefacts, into one archive."),
    "import": ("diffbench.cli.import_", "Unpack an archive of a run; everything is verified first."),
    "gc": ("diffbench.cli.gc", "Remove from the store what no run names any more."),
    "new": ("diffbench.cli.new", "Write a package with a component of your own that works."),
    "init": ("diffbench.cli.init", "Write a matrix to start from, and its schema for editors."),
    "schema": ("diffbench.cli.schema", "Write the JSON Schema of matrix.yaml, plug-ins included."),
    "doctor": ("diffbench.cli.doctor", "Explain what is wrong with an installation or a store."),
}


class _Lazy(click.Group):
    """Knows its commands by name and help; imports a command's module when it is asked for.
    Plug-ins add theirs by a hook.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(super().list_commands(ctx))]

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        command_name = name or cmd.name
        if command_name in COMMANDS or command_name in self.commands:
            raise DiffbenchError(f"there is a command {command_name!r} already")
        super().add_command(cmd, name)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            return importlib.import_module(COMMANDS[name][0]).command
        return super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in COMMANDS.items()]
        rows += [(name, command.get_short_help_str()) for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diffbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Which diffusion component is better, by how much, and at what cost."""
    ctx.obj = debug


def main(arguments: list[str] | None = None) -> None:
    """The console script. Exit codes: 0 all well, 1 some cell failed, 2 the request was wrong, 130 or 143 interrupted.
    """
    open_missing()
    with output.guarded():
        code = _run(arguments)
        sys.stdout.flush()
        why = output.failure()
        if why is not None:
            _say(f"standard output cannot be written: {why}")
            code = code or 1
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    """The exit code of a command line."""
    interrupts.install()
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        _plugin_commands()
        code = cli.main(args=arguments, prog_name="diffbench", standalone_mode=False)
    except click.exceptions.Abort:
        _say("interrupted")
        code = 130
    except click.ClickException as error:
        error.show(sys.stderr)
        code = 2
    except DiffbenchError as error:
        _tell(str(error), debug)
        code = error.exit_code
    except KeyboardInterrupt:
        _tell("interrupted", debug)
        code = interrupts.exit_code()
    except Exception as error:  # noqa: BLE001  the last place where anything is caught
        _tell(f"diffbench itself failed: {type(error).__name__}: {error}. Run again with --debug before the command "
              "for the traceback", debug)
        code = 1
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):                             # sys.exit("why"), as Python itself takes it
        _say(code)
        code = 1
    return code if isinstance(code, int) else 0


def _plugin_commands() -> None:
    """Commands of plug-ins, asked for only where a plug-in is installed."""
    from diffbench.registry import entry_points

    if any(True for _ in entry_points.entry_points("diffbench")):
        from diffbench.registry.registry import load_registry

        registry = load_registry()
        cli.commands.clear()                              # of an earlier call in this process
        registry.answers("diffbench_commands", cli=cli)
        for problem in registry.problems:
            _say(problem.message)


def _tell(text: str, debug: bool) -> None:
    """Prints the reason that ended a command, or its traceback; through the guarded stream, for a traceback holds names
    as well.
    """
    if debug:
        traceback.print_exc()
    else:
        _say(text)


def _say(text: Any) -> None:
    output.say(f"diffbench: {text}" if "\n" not in str(text) else text, err=True)
