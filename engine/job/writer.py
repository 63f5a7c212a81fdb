"""A job as YAML that a person is glad to keep: what was chosen, a word on each line, nothing else."""

import re
import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from ..specs.job import Job, Section
from .scalars import resolve

_ALWAYS = frozenset(
    {
        "version",
        "model.name_or_path",
        "data.path",
        "stage",
        "method.kind",
        "train.num_train_epochs",
        "train.global_batch_size",
        "train.max_length",
        "train.learning_rate",
    }
)
"""Written even when they are the defaults: what a reader of the file looks for first."""
_HEADER = "# A job for ftwiz. Start it with: ftwiz run THIS_FILE. Every key: ftwiz schema"
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.+@-]*(?::[A-Za-z0-9_/.+@-]+)*")
_OLD_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})  # booleans to readers of YAML 1.1
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LAST_SHORT = 0xFFFF  # the highest that YAML's \u with four digits can name
_WIDTH = 110
_COLUMN = 44


def dump_job(job: Job) -> str:
    """Return the job file's text; ``parse_job`` reads it back as an equal job.

    Args:
        job: With absolute paths, as ``load_job`` gives it; relative ones would start at the new file.
    """
    blocks = []
    for name, info in Job.model_fields.items():
        value = getattr(job, name)
        if not isinstance(value, Section):
            blocks.append(_commented([(f"{name}: {scalar(value)}", _sentence(info))], indent=""))
            continue
        body = [(_entry(key, inner), _sentence(field)) for key, field, inner in _chosen(name, value)]
        if body:
            blocks.append([f"{name}:  # {_sentence(info)}", *_commented(body, indent="  ")])
    return f"{_HEADER}\n" + "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def _chosen(name: str, section: Section) -> Iterator[tuple[str, FieldInfo, object]]:
    for key, info in type(section).model_fields.items():
        value = getattr(section, key)
        if f"{name}.{key}" in _ALWAYS or value != info.get_default(call_default_factory=True):
            yield key, info, value


def _entry(key: str, value: object) -> str:
    if isinstance(value, dict) and value:
        inner = "\n".join(_entry(scalar(word), below) for word, below in value.items())
        return f"{key}:\n{_indented(inner, '  ')}"
    if isinstance(value, str) and _suits_block(value):
        return f"{key}: |-\n{_indented(value, '  ')}"
    return f"{key}: {flow(value)}"


def _commented(entries: list[tuple[str, str]], *, indent: str) -> list[str]:
    """Put each comment behind its entry, aligned, or above it where it would not fit."""
    short = [len(entry) for entry, _ in entries if "\n" not in entry and len(entry) <= _COLUMN]
    column = max(short, default=0) + 2
    lines = []
    for entry, comment in entries:
        beside = f"{indent}{entry:<{column}}# {comment}"
        if "\n" in entry or len(entry) > column - 2 or len(beside) > _WIDTH:
            lines += [f"{indent}# {line}" for line in textwrap.wrap(comment, _WIDTH - 4)]
            lines.append(_indented(entry, indent))
        else:
            lines.append(beside)
    return lines


def _indented(text: str, indent: str) -> str:
    return "\n".join(f"{indent}{line}" if line else line for line in text.split("\n"))


def _sentence(info: FieldInfo) -> str:
    """The first sentence of a field's help text."""
    text = " ".join((info.description or "").split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].rstrip(".")


def flow(value: object) -> str:
    """Return any value on one line: ``[a, b]``, ``{a: 1}`` or a scalar."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{scalar(key)}: {flow(inner)}' for key, inner in value.items())}}}"
    return scalar(value)


def scalar(value: object) -> str:
    """Return one value as YAML 1.2 and YAML 1.1 readers both understand it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    assert isinstance(value, str)
    return value if _is_plain(value) else _quoted(value)


def _number(value: float) -> str:
    """YAML 1.1 takes ``2e-05`` for text, so a mantissa always gets its point."""
    mantissa, exponent, power = repr(value).partition("e")
    return repr(value) if not exponent or "." in mantissa else f"{mantissa}.0e{power}"


def _is_plain(text: str) -> bool:
    return (
        _PLAIN.fullmatch(text) is not None
        and text.lower() not in _OLD_WORDS
        and isinstance(_resolved(text), str)
        and not text.startswith(("...", "---"))
    )


def _resolved(text: str) -> object:
    try:
        return resolve(text)
    except ValueError:
        return None


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    code = ord(letter)
    if letter.isprintable():
        return letter
    return f"\\u{code:04x}" if code <= _LAST_SHORT else f"\\U{code:08x}"


def _suits_block(text: str) -> bool:
    """A text of several lines reads best as a block, when nothing in it needs an escape."""
    lines = text.split("\n")
    return (
        len(lines) > 1
        and all(line.isprintable() for line in lines)
        and lines[0] != ""
        and not lines[0].startswith(" ")
        and lines[-1] != ""
    )
