"""Machines that are written down, for planning where one is not: ``8xA100-80GB+1TB``, or a file.

GB and GiB both mean 2**30 bytes here, as makers of memory mean them.
"""

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BadInput
from ..specs.machine import Device, Host, Machine
from .catalogue import Accelerator, accelerators, with_facts
from .machine_file import MOST_BYTES, machine_from_json

SOURCE = "written"
EXAMPLES = "8xA100-80GB, 2x4090+64GB, 4xAscend910B3-64GB, 2 nodes x 8xH100, 16cpu+64GB"
FILE_HINT = "or a file from the other machine: ftwiz devices --json > machine.json"
MOST_DEVICES = 1024
MOST_NODES = 65536
MOST_CPUS = 65536
_KINDS = {
    "nvidia": "cuda",
    "amd": "cuda",
    "hygon": "cuda",
    "metax": "cuda",
    "thead": "cuda",
    "huawei": "npu",
    "intel": "xpu",
    "habana": "hpu",
    "apple": "mps",
    "cambricon": "mlu",
    "mthreads": "musa",
}
"""Torch's device type of each vendor."""
_MAKERS = frozenset({"nvidia", "geforce", "tesla", "amd", "huawei", "intel", "habana", "apple"})
"""Words that may stand before a name and say nothing more."""
_GIB = 1 << 30
_GB = 10**9
_UNITS = {"g": 1, "t": 1024}
_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,3})?"
_TIMES = "[x*\u00d7]"
_NODES = re.compile(rf"([0-9]{{1,9}})\s*nodes?\s*{_TIMES}\s*(.+)", re.IGNORECASE)
_MANY = re.compile(rf"([0-9]{{1,9}})\s*{_TIMES}\s*(.+)", re.IGNORECASE)
_CPUS = re.compile(r"(?:([0-9]{1,9})\s*)?(?:cpus?|cores?)", re.IGNORECASE)
_SIZE = re.compile(rf"({_NUMBER})\s*(g|t)(?:i?b)?", re.IGNORECASE)
_SIZE_IN_NAME = re.compile(rf"(?<![A-Za-z0-9.])({_NUMBER})\s*(g)(?:i?b)?(?![A-Za-z0-9])", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(slots=True)
class _Draft:
    """What was read so far."""

    devices: list[Device]
    num_cpus: int | None = None
    memory_bytes: int | None = None
    names_cpu: bool = False


def parse_machine(text: str) -> Machine:
    """Return a machine from its description, or from the file of ``ftwiz devices --json``.

    Sizes of cards that the description leaves out are the usual ones, and the device's note says so. What
    is not written is unknown: links, disks, free memory.

    Raises:
        BadInput: Something in it is not understood; the message says what.
    """
    text = text.strip()
    if text.lower().endswith(".json") or "/" in text:
        return _from_file(Path(text))
    nodes, rest = _counted(_NODES, text, text, what="nodes", most=MOST_NODES)
    draft = _Draft(devices=[])
    for part in rest.split("+"):
        _read_part(part.strip(), draft, text)
    if not draft.devices and not draft.names_cpu:
        raise _bad(text, "names neither accelerators nor CPUs")
    memory = draft.memory_bytes
    if memory is None and draft.devices and all(device.unified_memory for device in draft.devices):
        memory = draft.devices[0].total_bytes
    host = Host(name=text, num_cpus=draft.num_cpus, total_bytes=memory)
    return Machine(host=host, devices=tuple(draft.devices), num_nodes=nodes)


def _read_part(part: str, draft: _Draft, text: str) -> None:
    if not part:
        raise _bad(text, "has an empty part")
    if size := _SIZE.fullmatch(part):
        if draft.memory_bytes is not None:
            raise _bad(text, "gives the host's memory twice")
        draft.memory_bytes = _bytes(size)
    elif cpus := _CPUS.fullmatch(part):
        if draft.names_cpu:
            raise _bad(text, "gives the host's CPUs twice")
        draft.names_cpu = True
        draft.num_cpus = _in_range(int(cpus[1]), text, "CPUs", MOST_CPUS) if cpus[1] else None
    else:
        left = MOST_DEVICES - len(draft.devices)
        many, name = _counted(_MANY, part, text, what="devices", most=left)
        device = _device(name, text)
        first = len(draft.devices)
        draft.devices += [replace(device, index=first + index) for index in range(many)]


def _counted(pattern: re.Pattern[str], part: str, text: str, *, what: str, most: int) -> tuple[int, str]:
    """Return how many of what: 8 and ``H100`` of ``8xH100``, and 1 when nothing is said."""
    match = pattern.fullmatch(part)
    return (_in_range(int(match[1]), text, what, most), match[2].strip()) if match else (1, part)


def _in_range(value: int, text: str, what: str, most: int) -> int:
    if not 1 <= value <= most:
        raise _bad(text, f"has {value} {what}; 1 to {most} can be planned for")
    return value


def _device(name: str, text: str) -> Device:
    rows = [row for row in accelerators() if _told(row.name) == _told(name)]  # as its driver says it
    size = None if rows else _SIZE_IN_NAME.search(name)
    rows = rows or _rows(_SIZE_IN_NAME.sub(" ", name))
    if not rows:
        raise _unknown(name, text)
    written = _bytes(size) if size else None
    if written == 0:
        raise _bad(text, f"gives {name!r} no memory")
    sold_so = [row for row in rows if written is not None and written == _nominal(row)]
    row = (sold_so or rows)[0]
    total, notes = (_usual(row), _size_notes(row)) if sold_so or written is None else (written, [])
    others = [other.name for other in sold_so or rows if other is not row]
    if others:
        notes.insert(0, f"taken as {row.name}, not {' or '.join(others[:3])}")
    return with_facts(
        Device(
            kind=_KINDS[row.vendor],
            vendor=row.vendor,
            index=0,
            name=row.name,
            architecture=row.architecture,
            total_bytes=total,
            unified_memory=row.unified_memory,
            source=SOURCE,
            note="; ".join(notes) or None,
        )
    )


def _nominal(row: Accelerator) -> int | None:
    """Return the size by which a card is sold, in the bytes that its maker means."""
    return None if row.memory_gb is None else int(row.memory_gb * _GIB)


def _usual(row: Accelerator) -> int | None:
    """Return what the driver of such a card reports, or a size that is rather too small than too large."""
    if row.memory_mib is not None:
        return row.memory_mib << 20
    return None if row.memory_gb is None else int(row.memory_gb * _GB)


def _size_notes(row: Accelerator) -> list[str]:
    if row.memory_mib is not None:
        return ["memory as such a card usually reports it"]
    if row.memory_gb is not None:
        return [f"memory from the {row.memory_gb:g} GB of its data sheet, counted carefully"]
    return ["memory unknown: write it behind the name, as in NAME-64GB"]


def _rows(name: str) -> list[Accelerator]:
    """Return what a name can mean.

    Those that are called exactly so, or all that have its words, or all whose name goes on with a digit
    (``910B``: 910B1 to 910B4), the smallest first.
    """
    words = _told(name)
    if not words:
        return []
    short = _without_series("".join(words))
    exact = [row for row in accelerators() if short == _short(row)]
    if found := exact or [row for row in accelerators() if _fits(words, row)]:
        return found
    variants = [row for row in accelerators() if re.fullmatch(rf"{re.escape(short)}\d", _short(row))]
    return sorted(variants, key=lambda row: row.memory_gb or 0)


def _short(row: Accelerator) -> str:
    return _without_series("".join(word for word in _told(row.name) if not _SIZE.fullmatch(word)))


def _without_series(name: str) -> str:
    return name.removeprefix("rtx").removeprefix("ascend")


def _told(name: str) -> list[str]:
    return [word for word in _words(name) if word not in _MAKERS]


def _fits(words: list[str], row: Accelerator) -> bool:
    """Whether every word is made of words of the row, in their order: ``rtx4090``, ``A100-SXM``."""
    own = tuple(word for word in _words(f"{row.name} {row.also}") if not _SIZE.fullmatch(word))
    return all(_is_made_of(word, own) for word in words)


def _is_made_of(text: str, words: tuple[str, ...]) -> bool:
    if not text:
        return True
    return any(
        text.startswith(word) and _is_made_of(text[len(word) :], words[place + 1 :])
        for place, word in enumerate(words)
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _bytes(size: re.Match[str]) -> int:
    return int(float(size[1]) * _UNITS[size[2].lower()] * _GIB)


def _from_file(path: Path) -> Machine:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(
            f"--machine {path}: {error.strerror}", hint=f"write a machine, as in {EXAMPLES}; {FILE_HINT}"
        ) from error
    return machine_from_json(data, where=str(path))


def _unknown(name: str, text: str) -> BadInput:
    words = (word for row in accelerators() for word in re.findall(r"[A-Za-z0-9]+", row.name))
    known = {word.lower(): word for word in words if not (word.isalpha() or _SIZE.fullmatch(word))}
    wanted = [word.removeprefix("ascend").removeprefix("rtx") for word in _told(_SIZE_IN_NAME.sub(" ", name))]
    near = [known[key] for word in wanted for key in difflib.get_close_matches(word, known, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near[:3])}? {FILE_HINT}" if near else f"write {EXAMPLES}; {FILE_HINT}"
    return _bad(text, f"has an unknown accelerator {name!r}", hint=hint)


def _bad(text: str, what: str, *, hint: str = f"write {EXAMPLES}; {FILE_HINT}") -> BadInput:
    return BadInput(f"--machine {text!r} {what}", hint=hint)
