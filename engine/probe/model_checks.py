"""Whether the files of a job are there and whole: model, weights, tokenizer, data. Nothing of them is run."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data import inspect
from ..errors import BadInput
from ..job import model_spec
from ..job.files import read_regular, shown_path
from ..job.local_models import find_cached, hub_cache
from ..job.model_folder import hub_spec
from ..specs.data import DataSummary
from ..specs.job import DEMO_MODEL, Job
from ..specs.model import ModelSpec
from .result import Result, ok, problem, size, warning
from .weights import check_weights

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)
"""One of these holds the words (transformers 5.23, tokenization_utils_base.py, convert_slow_tokenizer.py)."""
MAX_TOKENIZER_BYTES = 256 << 20
COUNT_TOLERANCE = 0.02
"""Buffers that some models save, and heads that others leave out, are below two percent of them."""
MANY = 10**8
"""Parameters from which on they are told in billions."""
GET_IT = "get it where there is a network: hf download {}"


def look_at_model(job: Job, environ: Mapping[str, str]) -> Iterator[Result]:
    """Report what the model is, and whether its files are here."""
    name = job.model.name_or_path
    if name == DEMO_MODEL:
        yield ok("model", "the tiny model of the demo, which is built from a seed")
        return
    spec = model_spec(job)
    yield ok("model", _described(name, spec))
    if job.model.trust_remote_code:
        yield warning("model", "Python code that comes with the model will be run", "read it first")
    folder = model_folder(job, environ)
    if folder is None:
        yield from _not_here(job, environ)
        return
    yield from _look_at_weights(folder, spec)
    yield from look_at_tokenizer(folder)


def model_folder(job: Job, environ: Mapping[str, str]) -> Path | None:
    """Return the folder that holds the model, or ``None`` when it would be downloaded."""
    name = job.model.name_or_path
    if name.startswith("/"):
        return Path(name)
    found = find_cached(hub_cache(environ), name, revision=job.model.revision)
    return found.folder if found and found.has_weights else None


def look_at_tokenizer(folder: Path) -> Iterator[Result]:
    """Report whether there is a tokenizer whose files can be read."""
    present = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        yield problem(
            "tokenizer",
            f"{shown_path(folder)}: has no tokenizer ({', '.join(TOKENIZER_FILES[:2])}, ...)",
            "copy it from the model that this one was made of",
        )
        return
    if present[0].endswith(".json"):
        _read_json(folder / present[0], limit_bytes=MAX_TOKENIZER_BYTES)
    config_file = folder / "tokenizer_config.json"
    config = _read_json(config_file, limit_bytes=MAX_TOKENIZER_BYTES) if config_file.is_file() else {}
    if config and config.get("eos_token") is None:
        yield problem(
            "tokenizer",
            f"{shown_path(config_file)}: has no eos_token, so answers would never end",
            "set eos_token",
        )
        return
    has_template = "chat_template" in config or (folder / "chat_template.jinja").is_file()
    note = "" if has_template else "; no chat template, so ftwiz's plain one will be used for conversations"
    yield ok("tokenizer", f"{present[0]}{note}")


def look_at_data(job: Job) -> Iterator[Result]:
    """Report what the data file is, from its first rows and its number of rows."""
    summary = inspect(job.data, stage=job.stage)
    rows = "rows not counted" if summary.num_rows is None else f"{summary.num_rows:,} rows"
    held_out = f", {summary.num_eval_rows:,} held out" if summary.num_eval_rows else ""
    yield ok("data", f"{', '.join(map(shown_path, job.data.paths))}: {summary.format}, {rows}{held_out}")
    yield from _data_warnings(job, summary)


def _described(name: str, spec: ModelSpec | None) -> str:
    if spec is None:
        return f"{name}: its shape is not known here"
    if spec.parameters is None:
        return f"{spec.model_type}: its parameters cannot be counted: {spec.unknown_reason}"
    count = spec.parameters.groups.num_total
    shown = f"{count / 1e9:,.2f} billion" if count >= MANY else f"{count:,}"
    return f"{spec.model_type}, {shown} parameters"


def _not_here(job: Job, environ: Mapping[str, str]) -> Iterator[Result]:
    name = job.model.name_or_path
    spec = hub_spec(name, revision=job.model.revision)
    known = spec.parameters.groups.num_total * 2 if spec and spec.parameters else None
    much = f", about {size(known)}" if known else ""
    if environ.get("HF_HUB_OFFLINE") in {"1", "true", "yes"}:
        yield problem(
            "weights", f"{name} is not on this machine, and HF_HUB_OFFLINE is set", GET_IT.format(name)
        )
        return
    yield warning(
        "weights",
        f"{name} is not on this machine: it will be downloaded{much}",
        f"or beforehand: hf download {name}",
    )


def _look_at_weights(folder: Path, spec: ModelSpec | None) -> Iterator[Result]:
    found = check_weights(folder)
    files = "1 file" if found.num_files == 1 else f"{found.num_files} files"
    what = f"{found.num_tensors:,} tensors in {files}, {size(found.num_bytes)}: every header fits its file"
    yield ok("weights", what)
    expected = spec.parameters.groups.num_total if spec and spec.parameters else None
    # Packed weights hold several parameters in an element: only unpacked ones can be counted.
    if (
        expected
        and not _is_packed(folder)
        and abs(found.num_elements - expected) > COUNT_TOLERANCE * expected
    ):
        yield warning(
            "weights",
            f"they have {found.num_elements:,} elements, and config.json describes {expected:,} parameters",
            "make sure that config.json and weights are of one model",
        )


def _is_packed(folder: Path) -> bool:
    config = _read_json(folder / "config.json", limit_bytes=MAX_TOKENIZER_BYTES)
    return "quantization_config" in config


def _data_warnings(job: Job, summary: DataSummary) -> Iterator[Result]:
    if summary.note:
        yield warning("data", summary.note)
    if summary.num_rows is not None and summary.num_rows < job.train.global_batch_size:
        yield warning(
            "data",
            f"{summary.num_rows} rows are fewer than train.global_batch_size {job.train.global_batch_size}",
            "lower it, so that a step is a whole batch",
        )


def _read_json(path: Path, *, limit_bytes: int) -> dict[str, Any]:
    where = shown_path(path)
    data = read_regular(path, limit_bytes=limit_bytes, what="a JSON file")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: is not valid JSON", hint="get this file again") from None
    if not isinstance(body, dict):
        raise BadInput(f"{where}: must hold keys and values", hint="get this file again")
    return body
