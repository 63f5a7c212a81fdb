"""Which devices ROCm's runtime shows to a process: ROCR_VISIBLE_DEVICES first, then HIP's or CUDA's."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROCR = "ROCR_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
CUDA = "CUDA_VISIBLE_DEVICES"
_PLAIN = re.compile(r"0|[1-9][0-9]{0,5}")
"""HIP takes a number only as it would write it itself: no blank, sign or leading zero."""
_UUID_LENGTHS = range(5, 21)
"""``GPU-`` and one to sixteen digits."""


@dataclass(frozen=True, slots=True)
class Visible:
    """Positions of the devices in the order of the process, and what is wrong with the variables."""

    positions: tuple[int, ...]
    problem: str | None = None


def visible(environ: Mapping[str, str], uuids: Sequence[str | None]) -> Visible:
    """Return the devices that both HIP and torch see.

    ROCr (rvdfilter) keeps what stands before the first bad or repeated entry, and an empty value leaves no
    device. HIP (rocdevice) numbers what is left anew; HIP_VISIBLE_DEVICES wins over CUDA_VISIBLE_DEVICES.
    HIP keeps a repeated device once and takes an empty value for unset; torch sees none in both cases: so do
    we. torch refuses more entries of HIP's than of ROCr's.
    """
    rocr = environ.get(ROCR)
    left = list(range(len(uuids))) if rocr is None else _rocr(rocr, uuids)
    value = environ.get(HIP)
    if rocr is not None and value is not None and len(value.split(",")) > len(rocr.split(",")):
        return Visible((), f"{HIP}={value} names more devices than {ROCR}={rocr}: torch refuses to start")
    if value is None:
        value = environ.get(CUDA)
    if value is None:
        return Visible(tuple(left))
    return Visible(tuple(left[place] for place in _hip(value, [uuids[position] for position in left])))


def _rocr(value: str, uuids: Sequence[str | None]) -> list[int]:
    chosen: list[int] = []
    for entry in value.split(",")[: len(uuids)]:
        token = entry.strip().upper()
        if token.startswith("G"):
            position = _by_uuid(token, uuids) if len(token) in _UUID_LENGTHS else None
        else:
            position = _by_number(token)
        if position is None or position >= len(uuids) or position in chosen:
            break
        chosen.append(position)
    return chosen


def _hip(value: str, uuids: Sequence[str | None]) -> list[int]:
    chosen: list[int] = []
    for entry in value.split(","):
        if entry.startswith("GPU-"):
            position = _by_uuid(entry.upper(), uuids)
        else:
            position = int(entry) if _PLAIN.fullmatch(entry) else None
        if position is None or position >= len(uuids):
            break
        chosen.append(position)
    return chosen if len(set(chosen)) == len(chosen) else []


def _by_uuid(token: str, uuids: Sequence[str | None]) -> int | None:
    """Return the one device whose UUID starts so."""
    fitting = [
        place for place, uuid in enumerate(uuids) if uuid is not None and uuid.upper().startswith(token)
    ]
    return fitting[0] if len(fitting) == 1 else None


def _by_number(token: str) -> int | None:
    """Return a number as strtol with base 0 reads it: ``1``, ``0x1``, ``01``."""
    digits = token.removeprefix("+")
    base = 16 if digits.startswith("0X") else 8 if digits.startswith("0") and len(digits) > 1 else 10
    try:
        return int(digits.removeprefix("0X"), base) if digits.isascii() and digits.isalnum() else None
    except ValueError:
        return None
