"""What ``rocminfo`` prints: the runtime's own list of devices, with true gfx target and market name."""

import re

from .. import pci
from ..values import size, word
from .card import Card, gpu_uuid
from .facts import architecture
from .kfd import bus_address

TOOL = "rocminfo"
_AGENT = re.compile(r"^\s*Agent \d+\s*$")
_FIELD = re.compile(r"^\s*([A-Za-z][\w .()]{1,40}?):\s*(.*?)\s*$")
_MOST_LINES = 20_000
_DEVICES = ("GPU", "DCU", "HCU")


def parse_cards(output: str) -> tuple[Card, ...]:
    """Return the GPUs in the order of the runtime.

    Raises:
        ValueError: It lists no GPU.
    """
    cards = [_card(agent) for agent in _agents(output) if agent.get("Device Type") in _DEVICES]
    if not cards:
        raise ValueError("no GPU in it")
    return tuple(cards)


def _agents(output: str) -> list[dict[str, str]]:
    """Return the fields of each agent; of a repeated field the first, which is the agent's own."""
    agents: list[dict[str, str]] = []
    for line in output.splitlines()[:_MOST_LINES]:
        if _AGENT.match(line):
            agents.append({})
        elif agents and (field := _FIELD.match(line[:512])) is not None:
            agents[-1].setdefault(field[1], field[2])
    return agents


def _card(agent: dict[str, str]) -> Card:
    location = agent.get("BDFID", "")
    is_location = location.isascii() and location.isdigit() and 0 < len(location) <= 10  # noqa: PLR2004 - 32 bits
    bus_id = bus_address(0, int(location)) if is_location and int(location) > 0xFF else None  # noqa: PLR2004 - no bus
    return Card(
        bus_id=pci.address(bus_id),
        uuid=gpu_uuid(agent.get("Uuid")),
        name=word(agent.get("Marketing Name")),
        architecture=architecture(agent.get("Name")),
        total_bytes=size(agent.get("Size", "").split("(")[0], "k") or None,
    )
