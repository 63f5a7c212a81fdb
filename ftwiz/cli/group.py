"""The tree of commands: names and one-line helps here, each command's code imported when it is called."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from .. import __version__
from ..engine.errors import ExitCode, FtwizError


class Verb(NamedTuple):
    """Where a command lives and what the list of commands says of it."""

    module: str
    help: str


VERBS = {
    "run": Verb("run", "Plan a job, write its run folder, launch it and follow it."),
    "demo": Verb("run", "Train a tiny model on the embedded demo, in about a minute."),
    "watch": Verb("watch", "Follow a run on one screen, or as lines or JSON."),
    "runs": Verb("runs", "List the runs."),
    "logs": Verb("runs", "Print what the ranks wrote."),
    "stop": Verb("runs", "Save a checkpoint and stop."),
    "resume": Verb("run", "Go on from the newest one."),
    "export": Verb("export", "Write a run's model for from_pretrained."),
    "plan": Verb("plan", "Show the plan of a job and its reasons; start nothing."),
    "estimate": Verb("estimate", "Say what training takes on device, host and disk, and why."),
    "check": Verb("check", "Find everything that can fail in a job; --smoke N tries it."),
    "devices": Verb("devices", "Show the machine."),
    "doctor": Verb("doctor", "Find what keeps it from training."),
    "models": Verb("models", "Find models."),
    "import": Verb("import_", "Make a job of a file of another tool."),
    "data": Verb("data", "Show what rows teach."),
    "accuracy": Verb("accuracy", "Compare the estimate with measurements."),
    "presets": Verb("plan", "List the presets."),
    "schema": Verb("plan", "Print the JSON schema of the job file."),
}

LINES = (
    *(("run",), ("demo",), ("watch",), ("runs", "logs"), ("stop", "resume")),
    *(("plan",), ("import", "data"), ("estimate",), ("check",), ("devices", "doctor"), ("export", "models")),
    (("presets", "schema")),
)
"""Verbs that share a line of the help, which has to fit on a screen of 24 lines."""


EDIT = "JOB.yaml"
"""What stands in place of a command when a job file is named alone."""
JOB_FILES = (".yaml", ".yml")

MOST_CHARACTERS = 600
"""Of a message: enough for every reason, and not for all of what was typed by accident."""


def _attribute(verb: str) -> str:
    """Return what a command's function is called: ``import`` is a word of Python's own."""
    return f"{verb}_" if verb == "import" else verb


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(
            importlib.import_module(f"{__package__}.{VERBS[cmd_name].module}"), _attribute(cmd_name)
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and on a misspelt one name the nearest."""
        if args[0] in VERBS:
            return super().resolve_command(ctx, args)
        if args[0].endswith(JOB_FILES):
            return EDIT, _edit_command(), args
        import difflib

        near = difflib.get_close_matches(args[0], VERBS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; see ftwiz --help"
        raise click.UsageError(f"no command {args[0]!r}{hint}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            shown = [[name for name in names if name in VERBS] for names in LINES]
            lines = [(", ".join(names), " ".join(VERBS[name].help for name in names)) for names in shown]
            formatter.write_dl([line for line in lines if line[0]])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="ftwiz %(version)s")
@click.option("--preset", metavar="NAME", help="Open a preset; --model --data --set, --yes starts it.")
@click.option("--model", metavar="MODEL", hidden=True)
@click.option("--data", metavar="FILE", hidden=True)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, hidden=True)
@click.option("--machine", "spec", metavar="SPEC", hidden=True)
@click.option("--yes", is_flag=True, hidden=True)
@click.option("--plain", is_flag=True, help="Ask line by line instead of a full screen.")
@click.pass_context
def group(context: click.Context, /, **options: Any) -> None:
    """Plan, launch and watch fine-tuning runs. Without a command: the wizard."""
    from .wizard import Asked, wizard

    asked = Asked(**options)
    if context.invoked_subcommand is None:
        context.exit(wizard(asked))
    if context.invoked_subcommand == EDIT:
        context.obj = asked
    elif asked != Asked():
        raise click.UsageError(
            "options of the wizard (--preset, --model, --data, --set, --machine, --yes, --plain) stand "
            f"before no command, not before {context.invoked_subcommand!r}"
        )


def _edit_command() -> click.Command:
    """Return what opens a job file in the wizard: ``ftwiz saved.yaml``."""

    @click.command(EDIT)
    @click.argument("job", type=click.Path(path_type=Path))
    @click.pass_context
    def edit(context: click.Context, job: Path) -> int:
        from .wizard import edited, wizard

        return wizard(edited(context.obj, job))

    return edit


def help_text() -> str:
    """Return what ``ftwiz --help`` prints; ``help.txt`` holds it."""
    context = group.make_context("ftwiz", [], resilient_parsing=True, terminal_width=80)
    return group.get_help(context) + "\n"


def run_group(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; errors are one or two lines on stderr, never a traceback."""
    try:
        code = group.main(list(arguments), prog_name="ftwiz", standalone_mode=False)
    except FtwizError as error:
        return _complain(error.message, error.hint, error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "ftwiz"
        return _complain(error.format_message(), f"{where} --help", ExitCode.BAD_INPUT)
    except click.ClickException as error:
        return _complain(error.format_message(), None, ExitCode.BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _reader_is_gone()
    return code if isinstance(code, int) else ExitCode.OK


def _complain(message: str, hint: str | None, code: ExitCode) -> int:
    sys.stderr.write(f"error: {_one_line(message)}\n")
    if hint:
        sys.stderr.write(f"hint: {_one_line(hint)}\n")
    return code


def _one_line(text: str) -> str:
    """Keep a message on its line, and control characters of a file's content off the terminal."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}..."
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _reader_is_gone() -> int:
    # `ftwiz logs | head`: whoever read stdout has had enough. Python must not complain at its end either.
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.OK
