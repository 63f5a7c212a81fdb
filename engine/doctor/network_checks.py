"""Over which network interface ranks would talk, and variables that name one which is not there."""

import socket
from collections.abc import Iterable, Iterator

import psutil

from .finding import Finding, error, note, ok, warning
from .patient import Patient

BY_PATTERN = ("NCCL_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME")
"""Prefixes by commas, ``=`` before them for exact names, ``^`` for all others (NCCL's, CANN's manuals)."""
BY_NAME = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
"""Exact names by commas (torch, distributed)."""
_CONTAINER_BRIDGES = ("docker", "br-", "veth", "virbr", "cni")


def look(patient: Patient) -> Iterator[Finding]:
    """Report the interface that each library would choose."""
    names = interfaces()
    is_needed = len(patient.devices) > 1
    wrong = list(_wrong(patient, names, is_needed=is_needed))
    yield from wrong
    outside = [name for name in names if not _is_loopback(name)]
    if not outside:
        yield note(
            "no network but the loopback",
            advice="enough for one machine; several machines cannot train together",
        )
    elif not wrong:
        chosen = _choice(patient, names)
        yield ok(
            f"ranks would talk over {chosen}"
            + (f" (there are {', '.join(outside)})" if len(outside) > 1 else "")
        )
    yield from _bridges(outside)
    yield from _own_name()


def interfaces() -> list[str]:
    """Return the interfaces that are up and have an address."""
    states = psutil.net_if_stats()
    return sorted(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if (state := states.get(name)) is not None
        and state.isup
        and any(address.family in {socket.AF_INET, socket.AF_INET6} for address in addresses)
    )


def matching(value: str, names: Iterable[str]) -> list[str]:
    """Return the interfaces that NCCL's and HCCL's pattern lets through."""
    is_excluding = value.startswith("^")
    value = value.removeprefix("^")
    is_exact = value.startswith("=")
    wanted = [word.strip().removeprefix("=") for word in value.removeprefix("=").split(",") if word.strip()]

    def fits(name: str) -> bool:
        return any(name == word if is_exact else name.startswith(word) for word in wanted)

    return [name for name in names if fits(name) != is_excluding]


def _wrong(patient: Patient, names: list[str], *, is_needed: bool) -> Iterator[Finding]:
    kind = error if is_needed else warning
    for variable in (*BY_PATTERN, *BY_NAME):
        value = patient.environ.get(variable, "").strip()
        if not value:
            continue
        if variable in BY_PATTERN:
            is_there = bool(matching(value, names))
        else:
            is_there = all(word.strip() in names for word in value.split(","))
        if not is_there:
            yield kind(
                f"{variable}={value} names no interface that is up: ranks will not find each other",
                evidence=f"up, with an address: {', '.join(names) or 'none'}",
                advice="name one of these, or leave the choice to the library",
                command=f"unset {variable}",
            )


def _choice(patient: Patient, names: list[str]) -> str:
    """Return the first interface in NCCL's and HCCL's order: named, InfiniBand, others, bridges, loopback."""
    for variable in BY_PATTERN:
        value = patient.environ.get(variable, "").strip()
        if value and (allowed := matching(value, names)):
            return f"{allowed[0]} ({variable})"
    ranked = sorted(names, key=lambda name: (_rank(name), name))
    return ranked[0]


def _rank(name: str) -> int:
    if _is_loopback(name):
        return 3
    if name.startswith(_CONTAINER_BRIDGES):
        return 2
    return 0 if name.startswith("ib") else 1


def _bridges(outside: list[str]) -> Iterator[Finding]:
    if outside and all(name.startswith(_CONTAINER_BRIDGES) for name in outside):
        yield note(
            f"only bridges of containers are up: {', '.join(outside)}",
            advice="ranks on other machines cannot reach this one over them",
        )


def _own_name() -> Iterator[Finding]:
    name = socket.gethostname()
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        addresses = set()
    own = {address.address for found in psutil.net_if_addrs().values() for address in found}
    if not addresses & own:
        yield note(
            "this host's own name leads to none of its addresses",
            evidence=f"{name}: {', '.join(sorted(addresses)) or 'not known'}",
            advice="gloo then uses the loopback: enough for one machine; for several set GLOO_SOCKET_IFNAME",
        )


def _is_loopback(name: str) -> bool:
    return name == "lo" or (name.startswith("lo") and name[2:].isdigit())
