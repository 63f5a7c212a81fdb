"""What ``rocm-smi`` prints, from ROCm 4 to 6, and Hygon's ``hy-smi`` after it: JSON, lists and tables."""

import re
from collections.abc import Mapping

from .. import pci
from ..values import hexadecimal, load_json, mapping, number, share, size, whole, word
from .card import Card, gpu_uuid
from .facts import architecture

TOOL = "rocm-smi"
QUERY = (
    *("-i", "--showproductname", "--showuniqueid", "--showbus", "--showmeminfo", "vram", "--showuse"),
    *("--showtemp", "--showpower", "--showmaxpower", "--json"),
)
TOPOLOGY = ("--showtopotype", "--json")
_NAMES = ("card series", "device name", "card model")
_USE = ("gpu use (%)", "dcu use (%)", "hcu use (%)")
_POWER = ("average graphics package power (w)", "current socket graphics package power (w)")
_TEMPERATURES = ("temperature (sensor junction) (c)", "temperature (sensor edge) (c)")
_CARD = re.compile(r"card(\d{1,3})$")
_GPU_LINE = re.compile(r"^\s*(?:GPU|DCU|HCU)\[(\d{1,3})\]\s*:\s*(.+?)\s*:\s+(.*)$")
_PAIR = re.compile(r"\(topology\) link type between drm devices (\d{1,3}) and (\d{1,3})$")
_ROW = re.compile(r"^(\d{1,3})\s+\S")
_BOUNDARY = re.compile(r"\s{2,}")
_MOST_LINES = 20_000


def parse_cards(output: str) -> tuple[Card, ...]:
    """Return the devices of an output in any of the tool's forms.

    Raises:
        ValueError: It names no device.
    """
    try:
        found = _of_json(load_json(output))
    except ValueError:
        found = _of_lines(output) or _of_table(output)
    if not found:
        raise ValueError("no card in it")
    return tuple(_card(number, found[number]) for number in sorted(found))


def parse_links(output: str) -> dict[tuple[int, int], str]:
    """Return the kinds of links (``XGMI``, ``PCIE``) between the tool's numbers of the cards.

    Raises:
        ValueError: It is not the JSON of ``--showtopotype``.
    """
    links = {}
    for key, kind in mapping(mapping(load_json(output)).get("system")).items():
        pair, name = _PAIR.match(key.lower()), word(kind)
        if pair is not None and name is not None:
            links[int(pair[1]), int(pair[2])] = name.upper()
    return links


def _of_json(value: object) -> dict[int, Mapping[str, object]]:
    found: dict[int, Mapping[str, object]] = {}
    for name, values in mapping(value).items():
        place = _CARD.match(name)
        if place is not None and mapping(values):
            found[int(place[1])] = {key.lower().strip(): item for key, item in mapping(values).items()}
    return found


def _of_lines(output: str) -> dict[int, Mapping[str, object]]:
    """Return the cards of lines such as ``GPU[0] : VRAM Total Memory (B): 34342961152``."""
    found: dict[int, dict[str, object]] = {}
    for line in output.splitlines()[:_MOST_LINES]:
        match = _GPU_LINE.match(line[:1024])
        if match is not None:
            found.setdefault(int(match[1]), {}).setdefault(match[2].strip().lower(), match[3].strip())
    return {place: values for place, values in found.items() if values}


def _of_table(output: str) -> dict[int, Mapping[str, object]]:
    """Return the cards of the plain table; it says no bytes of memory, only per cent."""
    found: dict[int, Mapping[str, object]] = {}
    heads: list[str] = []
    last: dict[str, object] = {}
    for line in output.splitlines()[:_MOST_LINES]:
        cells = _BOUNDARY.split(line[:1024].strip())
        if cells[0] in {"Device", "DCU", "HCU", "GPU"} and "Perf" in cells:
            heads = cells
        elif heads and _ROW.match(line) and len(cells) == len(heads):
            row = dict(zip(heads, cells, strict=True))
            last = {
                "temperature (sensor edge) (c)": row.get("Temp"),
                _POWER[0]: row.get("Power", row.get("AvgPwr")),
                "max graphics package power (w)": row.get("PwrCap"),
                _USE[0]: row.get("GPU%", row.get("DCU%", row.get("HCU%"))),
            }
            found[int(cells[0])] = last
        elif last and line[:1].isspace() and len(cells) == 1 and cells[0]:
            last.setdefault("card series", cells[0])
    return found


def _card(place: int, values: Mapping[str, object]) -> Card:
    unique = _first(values, "unique id")
    return Card(
        number=place,
        bus_id=pci.address(_first(values, "pci bus")),
        uuid=gpu_uuid(unique),
        name=_name(values),
        architecture=architecture(_first(values, "gfx version")),
        device_id=hexadecimal(_first(values, "device id", "gpu id")),
        total_bytes=_memory(values, "vram total memory"),
        used_bytes=_memory(values, "vram total used memory"),
        utilization_percent=share(_first(values, *_USE)),
        temperature_celsius=number(_first(values, *_TEMPERATURES)),
        power_watts=number(_first(values, *_POWER)),
        power_limit_watts=number(_first(values, "max graphics package power (w)")),
        clock_mhz=number(_first(values, "sclk clock speed:")),
        numa_node=_numa(values),
    )


def _first(values: Mapping[str, object], *keys: str) -> str | None:
    return next((found for key in keys if (found := word(values.get(key))) is not None), None)


def _name(values: Mapping[str, object]) -> str | None:
    """Return the series; ROCm 4 writes the vendor's number (0x1002) for a name that it does not know."""
    return _first(values, *_NAMES)


def _memory(values: Mapping[str, object], name: str) -> int | None:
    """Return bytes; AMD counts in B, Hygon in MiB."""
    exact = size(values.get(f"{name} (b)"))
    return size(values.get(f"{name} (mib)"), "m") if exact is None else exact


def _numa(values: Mapping[str, object]) -> int | None:
    """Return the NUMA node; where there is none, the affinity is -1 or 4294967295."""
    return whole(_first(values, "(topology) numa node"))
