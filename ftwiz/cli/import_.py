"""``ftwiz import``: files of other tools become a job."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..engine.imports import Change, Imported

_SIGNS = {"taken": "->", "used": "->", "followed": ">>", "dropped": "--", "secret": "--", "refused": "XX"}
_MOST_LEFT = 56
_STAGES = ("pt", "sft", "rm", "dpo", "kto", "orpo", "simpo", "grpo", "rloo")
_TOOLS = ("llamafactory", "llamafactory-v1", "accelerate", "deepspeed", "trl", "axolotl")


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="JOB.yaml", type=click.Path(path_type=Path), help="Write the job here."
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option(
    "--from", "form", type=click.Choice(_TOOLS), help="Whose file it is; told by its keys otherwise."
)
@click.option("--model", metavar="MODEL", help="Train this model instead of the one that the file names.")
@click.option(
    "--data", metavar="FILE", type=click.Path(path_type=Path),
    help="Train on these rows instead of what the file names.",
)  # fmt: skip
@click.option(
    "--stage", type=click.Choice(_STAGES), help="What the file trains, when it does not say so itself."
)
@click.option(
    "--processes", metavar="N", type=click.IntRange(1, 1_000_000),
    help="Devices that it was trained on: the global batch counts them.",
)  # fmt: skip
@click.option("--drop", "without", metavar="KEY", multiple=True, help="Go without this key of the file.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of every key, and the job, as JSON.")
def import_(
    files: tuple[Path, ...], output: Path | None, *, force: bool, as_json: bool, **wishes: Any
) -> None:
    """Make a job out of a file of LLaMA-Factory, axolotl, TRL, accelerate or DeepSpeed.

    What became of each key goes to stderr, the job to stdout or -o. A training file may come with the file of
    its engine.
    """
    from ..engine.errors import BadInput
    from ..engine.imports import Wishes, import_files

    if output is not None and not force and output.exists():
        raise BadInput(f"{output}: is there already", hint="another name, or --force to write over it")
    done = import_files(files, Wishes(**wishes))
    if as_json:
        click.echo(json.dumps(_as_json(done), indent=2))
    else:
        click.echo("\n".join(_lines(done)), err=True)
    if done.problems:
        raise _first_of(done)
    if output is not None:
        _write(output, done.text, force=force)
        click.echo(f"wrote {output}; next: ftwiz plan {output}", err=True)
    elif not as_json:
        click.echo(done.text, nl=False)


def _lines(done: "Imported") -> list[str]:
    """Return the diff: a line for each key, theirs on the left, and ours or the reason on the right."""
    lines, file = [], None
    width = min(max((len(_left(change)) for change in done.changes), default=0), _MOST_LEFT)
    for change in done.changes:
        if change.file != file:
            file = change.file
            lines.append(file)
        lines.append(f"{_left(change):<{width}} {_right(change)}")
    return [_printable(line) for line in lines]


def _left(change: "Change") -> str:
    return f"{change.line or '':>4}  {change.key}: {change.value}"


def _right(change: "Change") -> str:
    reason = f"  ({change.reason})" if change.reason and change.ours else change.reason
    return f"{_SIGNS[change.how]} {change.ours or ''}{reason}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _as_json(done: "Imported") -> dict[str, object]:
    from dataclasses import asdict

    return {
        "version": 1,
        "tools": done.tools,
        "changes": [asdict(change) for change in done.changes],
        "refused": [
            {"message": one.message, "hint": one.hint, "exit_code": int(one.exit_code)}
            for one in done.problems
        ],
        "job": done.text or None,
    }


def _first_of(done: "Imported") -> Exception:
    """Return the first thing in the way, with the next one as its hint when it has none of its own."""
    first, *rest = done.problems
    more = f" (and {len(rest) - 1} more)" if len(rest) > 1 else ""
    then = f"then: {rest[0].message}{more}" if rest else "change the file, or go without the key: --drop KEY"
    return type(first)(first.message, hint=first.hint or then)


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write the job; a file that came meanwhile is not written over either."""
    from ..engine.errors import BadInput

    try:
        with path.open("w" if force else "x", encoding="utf8") as file:
            file.write(text)
    except FileExistsError:
        raise BadInput(f"{path}: is there already", hint="another name, or --force") from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise BadInput(f"{path}: {reason}", hint="name a file that can be written: -o JOB.yaml") from None
