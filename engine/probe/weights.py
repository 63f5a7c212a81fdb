"""Whether the weights of a model folder are whole, from their headers: no tensor is read, nothing is run.

Format: safetensors 0.8, README "Format": 8 bytes little-endian header size N, N bytes of JSON, then the data.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..job.files import read_regular, shown, shown_path

MAX_HEADER_BYTES = 100_000_000
"""As in safetensors' own reader (safetensors 0.8, tensor.rs, MAX_HEADER_SIZE)."""
MAX_INDEX_BYTES = 64 << 20
INDEX = "model.safetensors.index.json"
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of an element (safetensors 0.8, tensor.rs, Dtype)."""
_PREFIX = 8
_BITS = 8
_MAX_DIMENSIONS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """What the headers of a folder say."""

    num_files: int
    num_tensors: int
    num_elements: int
    num_bytes: int
    """Of all tensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tensor:
    num_elements: int
    begin: int
    end: int


def check_weights(folder: Path) -> Weights:
    """Read the headers of every .safetensors file of a model and hold them against sizes and index.

    Raises:
        BadInput: A file is missing, cut, or not what its header or the index says; the message names it.
    """
    index = folder / INDEX
    expected = _read_index(index) if _exists(index) else None
    names = sorted({*expected.values()}) if expected else _weight_files(folder)
    if not names:
        raise BadInput(
            f"{shown_path(folder)}: has no weights in .safetensors files",
            hint="get them again: hf download MODEL --local-dir FOLDER",
        )
    found: dict[str, dict[str, _Tensor]] = {name: dict(_tensors(folder / name)) for name in names}
    if expected is not None:
        _check_index(index, expected, found)
    every = [tensor for tensors in found.values() for tensor in tensors.values()]
    return Weights(
        num_files=len(names),
        num_tensors=len(every),
        num_elements=sum(tensor.num_elements for tensor in every),
        num_bytes=sum(tensor.end - tensor.begin for tensor in every),
    )


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _weight_files(folder: Path) -> list[str]:
    """Return what transformers would load without an index."""
    if _exists(folder / "model.safetensors"):
        return ["model.safetensors"]
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name.endswith(".safetensors"))


def _read_index(path: Path) -> dict[str, str]:
    where = shown_path(path)
    data = read_regular(path, limit_bytes=MAX_INDEX_BYTES, what="an index of weights")
    try:
        files: Any = json.loads(data)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{where}: is no index of weights: {type(error).__name__}") from None
    is_map = isinstance(files, dict) and files and all(isinstance(name, str) for name in files.values())
    if not is_map:
        raise BadInput(f"{where}: weight_map: must map tensors to files")
    for name in set(files.values()):
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise BadInput(f"{where}: weight_map: {shown(name)} is no .safetensors file of this folder")
    return dict(files)


def _check_index(index: Path, expected: Mapping[str, str], found: Mapping[str, Mapping[str, Any]]) -> None:
    for tensor, name in expected.items():
        if tensor not in found[name]:
            raise BadInput(
                f"{shown_path(index)}: says that {shown(tensor)} is in {name}, and it is not",
                hint="index and files are of different versions: get the model again",
            )


def _tensors(path: Path) -> Iterator[tuple[str, _Tensor]]:
    """Yield the tensors of a file; their bytes must follow one another and fill the file to its end."""
    where = shown_path(path)
    header, data_bytes = _read_header(path)
    tensors = {name: _tensor(where, name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            what = "overlaps the one before" if tensor.begin < end else "leaves a gap before it"
            raise BadInput(f"{where}: tensor {shown(name)} {what}", hint="the file is damaged: get it again")
        end = tensor.end
    if end != data_bytes:
        kind = "is cut" if end > data_bytes else "is longer than its header says"
        raise BadInput(
            f"{where}: {kind}: {data_bytes:,} bytes of tensors, and the header names {end:,}",
            hint="get this file again",
        )
    yield from tensors.items()


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a file, and how many bytes follow it."""
    where = shown_path(path)
    prefix = _first_bytes(path, _PREFIX)
    size = path.stat().st_size
    if len(prefix) < _PREFIX:
        raise BadInput(f"{where}: is cut: it has {len(prefix)} bytes", hint="get this file again")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(MAX_HEADER_BYTES, size - _PREFIX):
        raise BadInput(
            f"{where}: its header should have {length:,} bytes, and the file has {size:,}",
            hint="the file is cut, or no .safetensors file: get it again",
        )
    try:
        header = json.loads(_first_bytes(path, _PREFIX + length)[_PREFIX:])
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: its header is not JSON", hint="get this file again") from None
    if not isinstance(header, dict):
        raise BadInput(f"{where}: its header names no tensors", hint="get this file again")
    return header, size - _PREFIX - length


def _first_bytes(path: Path, count: int) -> bytes:
    where = shown_path(path)
    try:
        if not path.is_file():
            raise BadInput(f"{where}: is missing or no ordinary file", hint="get it again")
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise BadInput(f"{where}: cannot be read: {error.strerror}") from error


def _tensor(where: str, name: str, entry: Any) -> _Tensor:
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        begin, end = entry["data_offsets"]
        numbers = [begin, end, *shape]
        bits = DTYPE_BITS[dtype]
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{where}: tensor {shown(name)} is not described as it must be") from None
    is_whole = all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
    if not is_whole or len(shape) > _MAX_DIMENSIONS:
        raise BadInput(f"{where}: tensor {shown(name)} has no sizes")
    num_elements = math.prod(shape)
    if end - begin != -(-num_elements * bits // _BITS):
        raise BadInput(
            f"{where}: tensor {shown(name)} is {dtype} of shape {shown(str(shape))}, "
            f"and has {end - begin:,} bytes"
        )
    return _Tensor(num_elements=num_elements, begin=begin, end=end)
