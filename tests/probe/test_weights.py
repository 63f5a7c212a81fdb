"""Weights are checked by their headers: real files pass, and every way to damage one is named."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import BadInput
from ftwiz.engine.probe.weights import INDEX, check_weights

Make = Callable[..., Path]


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, *, dtype: str = "F32", shape: list[Any] | None = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


GOOD = safetensors({"__metadata__": {"format": "pt"}, "a": entry(0, 8), "b": entry(8, 16)}, bytes(16))


@pytest.fixture
def model(tmp_path: Path) -> Make:
    """``model(**{"model": bytes})``: a folder with those .safetensors files and, if given, an index."""

    def make(index: object = None, **files: bytes) -> Path:
        for name, data in files.items():
            (tmp_path / f"{name}.safetensors").write_bytes(data)
        if index is not None:
            text = index if isinstance(index, str) else json.dumps({"weight_map": index})
            (tmp_path / INDEX).write_text(text, encoding="utf8")
        return tmp_path

    return make


def test_a_real_model_passes(tiny_model: Path) -> None:
    found = check_weights(tiny_model)
    assert found.num_files == 1
    assert found.num_bytes == 4 * found.num_elements
    assert found.num_tensors > 10
    assert (tiny_model / "model.safetensors").stat().st_size > found.num_bytes


def test_every_file_of_an_index_is_read(model: Make) -> None:
    folder = model(
        {"a": "one.safetensors", "c": "two.safetensors"},
        one=GOOD,
        two=safetensors({"c": entry(0, 4)}, bytes(4)),
    )
    found = check_weights(folder)
    assert (found.num_files, found.num_tensors, found.num_elements, found.num_bytes) == (2, 3, 5, 20)


def test_elements_smaller_than_a_byte_and_empty_tensors_count(model: Make) -> None:
    tensors = {"a": entry(0, 2, dtype="F4", shape=[2, 2]), "b": entry(2, 2, shape=[0])}
    assert check_weights(model(model=safetensors(tensors, bytes(2)))).num_elements == 4


DAMAGED = {
    "is cut: it has 3 bytes": b"abc",
    "should have 4,611,686,018,427,387,904 bytes": safetensors({"a": entry(0, 4)}, bytes(4), length=1 << 62),
    "should have 99,999 bytes": safetensors({"a": entry(0, 4)}, bytes(4), length=99_999),
    "is not JSON": safetensors(b"{nonsense", bytes(4)),
    "header is not JSON": safetensors(b"[" * 100_000),
    "names no tensors": safetensors([1, 2], bytes(4)),
    "is cut: 12 bytes of tensors, and the header names 16": GOOD[:-4],
    "is longer than its header says": GOOD + b"more",
    "overlaps": safetensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "leaves a gap": safetensors({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
    "is F32 of shape": safetensors({"a": entry(0, 8, shape=[3])}, bytes(8)),
    "is not described": safetensors({"a": entry(0, 8, dtype="F33")}, bytes(8)),
    "has no sizes": safetensors({"a": entry(0, 8, shape=[-2])}, bytes(8)),
    "'a' has no sizes": safetensors({"a": entry(0, 8, shape=[1] * 99)}, bytes(8)),
    "'a' is not described": safetensors({"a": None}, bytes(8)),
    "tensor '\\x1b[31m'": safetensors({"\x1b[31m": {}}, bytes(8)),
}


@pytest.mark.parametrize("said", DAMAGED)
def test_a_damaged_file_is_named_with_what_is_wrong(model: Make, said: str) -> None:
    folder = model(model=DAMAGED[said])
    began = time.monotonic()
    with pytest.raises(BadInput) as caught:
        check_weights(folder)
    assert said in caught.value.message
    assert "model.safetensors" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"a": "gone.safetensors"}, "gone.safetensors: is missing"),
        ({"a": "model.safetensors", "z": "model.safetensors"}, "'z' is in model.safetensors, and it is not"),
        ({"a": "../model.safetensors"}, "is no .safetensors file of this folder"),
        ({"a": "model.bin"}, "is no .safetensors file of this folder"),
        ({}, "must map tensors to files"),
        ({"a": 1}, "must map tensors to files"),
        ("[]", "is no index"),
        ("{", "is no index"),
        ('{"weight_map": ' + "[" * 50_000, "is no index"),
    ],
)
def test_an_index_that_is_not_true_is_named(model: Make, index: object, said: str) -> None:
    folder = model(index, model=GOOD)
    with pytest.raises(BadInput) as caught:
        check_weights(folder)
    assert said in caught.value.message


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no weights"):
        check_weights(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop"])
def test_what_is_no_file_is_refused_and_waited_for_by_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(
        BadInput, match=r"model\.safetensors: (is missing or no ordinary file|cannot be read)"
    ):
        check_weights(tmp_path)
