"""The command that says what a training step will take, line by line, before anything is loaded."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from ..engine.memory import estimate as fast_estimate
from ..engine.memory.knobs import Question, cheapest_fit, effects
from ..engine.memory.ledger import completed
from ..engine.memory.verdict import DRIVER_KEEPS_BYTES, place_verdict, shared_verdict, verdict, worst
from ..engine.memory.workload import Recipe, recipe_workload
from ..engine.specs.estimate import Estimate, Verdict
from ..engine.specs.job import Train
from ..engine.specs.machine import CPU, Machine
from ..engine.specs.workload import Workload
from ..engine.stack import LIBRARIES, installed_stack, installed_version
from .estimate_input import (
    ATTENTIONS,
    BACKENDS,
    METHODS,
    OFFLOADS,
    PRECISIONS,
    QUANTIZATIONS,
    STAGES,
    Options,
    recipe_of,
)
from .estimate_target import Target, target
from .named_model import NamedModel, named_model
from .show_estimate import Report, report_lines, verdict_lines

LEAST_WIDTH, MOST_WIDTH = 60, 120
MOST_TOKENS = 100_000_000
MOST_BATCH = 1_000_000
MOST_RANK = 4096
EXACT_SECONDS = 120.0
Option = Callable[[Any], Any]


def _choice(name: str, values: Any, text: str, default: str | None = None) -> Option:
    return click.option(
        name, type=click.Choice(list(values)), default=default, help=text, show_default=default is not None
    )


def _number(name: str, most: int, text: str, default: int | None = None) -> Option:
    return click.option(
        name,
        type=click.IntRange(1, most),
        default=default,
        metavar="N",
        help=text,
        show_default=default is not None,
    )


OPTIONS: tuple[Option, ...] = (
    _choice("--method", METHODS, "Which weights are trained.", "lora"),
    _number("--rank", MOST_RANK, "Rank of the adapter; 16."),
    click.option("--targets", multiple=True, metavar="NAMES", help="Adapted layers, or all-linear."),
    click.option(
        "--modules-to-save", multiple=True, metavar="NAMES", help="Modules trained whole beside it."
    ),
    _number("--trainable-layers", 10_000, "Layers that --method freeze trains; 2."),
    _choice("--stage", STAGES, "Kind of training.", "sft"),
    _number("--seq", MOST_TOKENS, "Longest sequence in tokens.", Train.model_fields["max_length"].default),
    _number("--micro-batch", MOST_BATCH, "Sequences (or pairs) per device and pass.", 1),
    _number("--accumulation", MOST_BATCH, "Passes per step; by default they make a global batch of 16."),
    _choice("--backend", BACKENDS, "Engine; by default single, or ddp on several devices."),
    _choice("--offload", OFFLOADS, "What moves to the host's memory or a disk.", "none"),
    _number("--devices", 1 << 26, "Devices to train on; by default all of the machine."),
    click.option("--machine", metavar="SPEC", help="Another machine: 2x4090, 8xA100-80GB+1TB, or a file."),
    click.option(
        "--optim",
        default=Train.model_fields["optim"].default,
        show_default=True,
        metavar="NAME",
        help="Optimizer.",
    ),
    click.option("--checkpointing/--no-checkpointing", default=None, help="Recompute activations; on."),
    _choice("--attention", ATTENTIONS, "How attention is computed; by default what transformers takes."),
    _choice("--quant", QUANTIZATIONS, "How frozen weights are packed; nf4 for qlora."),
    click.option("--packing", is_flag=True, help="Several examples in one sequence."),
    _choice("--dtype", PRECISIONS, "Format of the computation; by default what the device can do."),
    click.option("--exact", is_flag=True, help="Trace the real model (seconds, needs torch; no GPU)."),
    click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
    click.option("--explain", is_flag=True, help="Every formula, and what each choice would change."),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("model")
@_with_options
def estimate(**typed: Any) -> None:
    """Say what training takes on device, host and disk, line by line, before anything is loaded.

    MODEL is a folder, or a model's id as `ftwiz models` lists them. Nothing is downloaded.
    """
    options = Options(**typed)
    report = answer(options)
    if options.as_json:
        from .estimate_json import report_json

        click.echo(json.dumps(report_json(report), indent=2))
        return
    width = min(max(shutil.get_terminal_size().columns, LEAST_WIDTH), MOST_WIDTH)
    lines = list(report_lines(report, width=width))
    if options.explain:
        from .show_estimate_explained import explained_lines

        lines += ["", *explained_lines(report, width=width)]
    if sys.stdout.isatty() and len(lines) >= shutil.get_terminal_size().lines:
        lines += ["", *verdict_lines(report, width)]  # its first place has left the screen
    click.echo("\n".join(lines), color=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def answer(options: Options) -> Report:
    """Return what the options ask for.

    Raises:
        BadInput: An option, the model or their combination cannot be.
        Refused: The machine's devices cannot be used, or the exact tier cannot serve.
    """
    machine = _machine(options.machine)
    place = target(machine, num_ranks=1 if options.backend == "single" else options.devices)
    model = named_model(options.model)
    recipe = recipe_of(options, place, model.spec)
    stack = installed_stack()
    workload = recipe_workload(recipe, model.spec, stack=stack)
    found = _exact(workload, model) if options.exact else _measured_or_modelled(workload, place)
    judge = _judge(place, recipe)
    device = judge(found)
    question = Question(
        recipe=recipe,
        model=model.spec,
        stack=stack,
        judge=lambda other: worst(judge(other), _host(other, place, recipe)),
        can_offload=not place.shares_host,
    )
    host = _host(found, place, recipe)
    disk = place_verdict(found, "disk", place.disk_free_bytes)
    overall = worst(device, host, disk)
    wants_all = options.explain or options.as_json
    return Report(
        model=model,
        target=place,
        recipe=recipe,
        workload=workload,
        estimate=found,
        device=device,
        host=host,
        disk=disk,
        overall=overall,
        effects=effects(question) if wants_all else (),
        fix=cheapest_fit(question) if worst(device, host).word in ("tight", "no") else None,
        notes=tuple(_notes(options, model, place, machine)),
    )


def _machine(text: str | None) -> Machine:
    if text is not None:
        from ..engine.hardware.written import parse_machine

        return parse_machine(text)
    from ..engine.hardware import detect

    return detect()


def _judge(place: Target, recipe: Recipe) -> Callable[[Estimate], Verdict]:
    """Device and host are one memory on the CPU and on unified devices: all ranks of a node share it."""
    ranks = min(recipe.sharding.num_ranks, place.ranks_per_node)
    if not place.shares_host:
        return lambda found: verdict(found, place.free_bytes, place.total_bytes)
    free = place.free_bytes if place.host_free_bytes is None else place.host_free_bytes
    return lambda found: shared_verdict(found, free, place.total_bytes, num_ranks=ranks)


def _host(found: Estimate, place: Target, recipe: Recipe) -> Verdict:
    if place.shares_host:
        return _judge(place, recipe)(found)
    free = place.host_total_bytes if place.host_free_bytes is None else place.host_free_bytes
    return place_verdict(found, "host", free)


def _measured_or_modelled(workload: Workload, place: Target) -> Estimate:
    """Return what probes and runs of this workload took on such a device, or else the fast estimate."""
    from ..engine.calibration import calibration_file

    modelled = fast_estimate(workload)
    if not calibration_file(os.environ).exists():
        return modelled  # most often so, and then the probe's room need not be loaded
    from ..engine.known import Known

    known = Known(
        environ=os.environ, device_kind=place.kind, device_name=place.name, device_bytes=place.total_bytes
    )
    return known(workload, modelled) or modelled


def _exact(workload: Workload, model: NamedModel) -> Estimate:
    from ..engine.exact import exact_estimate
    from .follow import say

    say(["tracing the model's own code, which takes some seconds"])
    return completed(exact_estimate(workload, model.config, time_limit=EXACT_SECONDS), workload)


def _notes(options: Options, model: NamedModel, place: Target, machine: Machine) -> Iterator[str]:
    longest = model.spec.max_position_embeddings
    if longest is not None and options.seq > longest:
        yield f"{options.seq:,} tokens are more than the {longest:,} that the model was made for"
    packed = model.config.get("quantization_config")
    if isinstance(packed, Mapping) and options.quant is None:
        kind = str(packed.get("quant_method", "packed"))[:20]
        yield f"the model's files are {kind}; counted as loaded in the format of the computation: --quant"
    if machine.num_nodes > 1:
        yield f"host and disk are those of one of the {machine.num_nodes} nodes"
    if place.is_written and place.kind != CPU:
        yield f"of a card known by its name the driver is taken to keep {DRIVER_KEEPS_BYTES >> 20} MiB"
    if place.fullest is not None and place.fullest.supports_bf16 is None and options.dtype is None:
        yield "the device does not say what it computes in: float32 (see --dtype)"
    missing = [name for name in LIBRARIES if installed_version(name) is None]
    if missing:
        yield f"counted as the tested versions, since they are not installed: {', '.join(missing)}"
