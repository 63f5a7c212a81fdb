"""A run as a text file in Prometheus' exposition format: for a node exporter's textfile collector, no port.

The file is replaced whole, so that a scraper never sees half of it.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path

from ...engine.errors import Refused
from ...engine.rundir import RunFolder, write_atomically
from .reader import Reader
from .verdicts import all_readings, measured_bytes
from .view import Frame

PERIOD_SECONDS = 5.0
Sample = tuple[str, str, float | None, dict[str, str]]


def keep(run: RunFolder, path: Path, *, once: bool = False) -> None:
    """Write the file, and with a run that lives again every few seconds until it is over.

    Raises:
        Refused: The file cannot be written.
    """
    reader = Reader(run, readonly=True)
    try:
        while True:
            frame = reader.read_all()
            try:
                write_atomically(path, exposition(frame), mode=0o644)
            except OSError as error:
                raise Refused(f"{path}: cannot be written: {error.strerror}") from error
            if once or frame.record.state.is_over:
                return
            time.sleep(PERIOD_SECONDS)
    finally:
        reader.close()


def exposition(frame: Frame) -> str:
    """Return the metrics of a run; what is unknown is left out."""
    lines: list[str] = []
    told: set[str] = set()
    for name, meaning, value, labels in _samples(frame):
        if value is None:
            continue
        if name not in told:
            told.add(name)
            lines += [f"# HELP ftwiz_{name} {meaning}", f"# TYPE ftwiz_{name} gauge"]
        written = {"run": frame.record.id, **labels}
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in written.items())
        lines.append(f"ftwiz_{name}{{{pairs}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _samples(frame: Frame) -> Iterator[Sample]:
    view, latest = frame.view, frame.view.latest
    yield "run_state", "1 for the state that the run is in.", 1.0, {"state": frame.record.state.value}
    yield "elapsed_seconds", "Time that all attempts took.", frame.elapsed_seconds, {}
    yield "remaining_seconds", "Time that the steps left will take.", view.remaining_seconds, {}
    yield "alerts", "Warnings and errors so far.", float(view.num_alerts), {}
    if latest is not None:
        yield "step", "Optimizer steps done.", float(latest.step), {}
        yield "max_steps", "Optimizer steps planned.", float(latest.max_steps), {}
        yield "epoch", "Passes over the data.", latest.epoch, {}
        yield "loss", "Loss of the newest logged step.", latest.loss, {}
        yield "learning_rate", "Learning rate.", latest.learning_rate, {}
        yield "grad_norm", "Norm of the gradient.", latest.grad_norm, {}
        yield "tokens_per_second", "Tokens of all ranks.", latest.tokens_per_second, {}
        yield "step_seconds", "Median of the last steps.", view.step_seconds, {}
    for metric in view.metrics:
        kind = "eval" if metric.is_eval else "train"
        yield "metric", "What else the trainer logs.", metric.value, {"name": metric.name, "of": kind}
    scored = [event.loss for event in view.evals if event.loss is not None]
    yield "eval_loss", "Loss on held-out rows.", scored[-1] if scored else None, {}
    peak = measured_bytes(frame)
    yield (
        "device_peak_bytes",
        "Most that tensors held on a device.",
        None if peak is None else float(peak),
        {},
    )
    yield from _device_samples(frame)


def _device_samples(frame: Frame) -> Iterator[Sample]:
    for name, meaning, field in (
        ("device_utilization_percent", "How busy a device is.", "utilization_percent"),
        ("device_memory_used_bytes", "Memory in use on a device.", "memory_used_bytes"),
        ("device_memory_total_bytes", "Memory of a device.", "memory_total_bytes"),
        ("device_temperature_celsius", "Temperature of a device.", "temperature_celsius"),
        ("device_power_watts", "Power that a device draws.", "power_watts"),
    ):
        for node, reading in all_readings(frame):
            value = getattr(reading, field)
            labels = {"node": str(node), "device": str(reading.index), "name": reading.name}
            yield name, meaning, None if value is None else float(value), labels


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else repr(float(value))


def _escaped(text: str) -> str:
    clean = "".join(character for character in text if character.isprintable() or character == "\n")
    return clean.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
