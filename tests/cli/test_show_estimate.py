"""How an estimate reads: numbers that add up, at every width, for every verdict."""

import re
from dataclasses import replace

import click
import pytest

from ftwiz.cli.estimate_input import Options, recipe_of
from ftwiz.cli.estimate_json import report_json
from ftwiz.cli.estimate_target import target
from ftwiz.cli.estimate_words import gib, number, phases_text, unit
from ftwiz.cli.named_model import named_model
from ftwiz.cli.show_estimate import Report, report_lines
from ftwiz.cli.show_estimate_explained import effect_lines, explained_lines
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.memory.knobs import Effect
from ftwiz.engine.memory.verdict import place_verdict, verdict, worst
from ftwiz.engine.memory.workload import recipe_workload
from ftwiz.engine.specs.estimate import PHASES, Estimate, Group, PhaseName, Place, Term

GIB = 1 << 30
PLAIN = Options(
    model="openai-community/gpt2",
    method="lora",
    rank=None,
    targets=(),
    modules_to_save=(),
    trainable_layers=None,
    stage="sft",
    seq=1024,
    micro_batch=1,
    accumulation=None,
    backend=None,
    offload="none",
    devices=None,
    machine=None,
    optim="adamw_torch",
    checkpointing=None,
    attention=None,
    quant=None,
    packing=False,
    dtype=None,
    exact=False,
    as_json=False,
    explain=False,
)
ALWAYS: tuple[PhaseName, ...] = PHASES


def term(
    name: str,
    size: float,
    *,
    group: Group = "weights",
    phases: tuple[PhaseName, ...] = ALWAYS,
    place: Place = "device",
) -> Term:
    num_bytes = round(size * GIB)
    return Term(
        name=name,
        group=group,
        num_bytes=num_bytes,
        phases=phases,
        formula=f"1 x {num_bytes:,} B",
        source="a library 1.0, a file",
        place=place,
    )


TERMS = (
    term("weights", 8),
    term("gradients", 2, group="gradients", phases=("backward end", "optimizer")),
    term("optimizer states", 4, group="optimizer", phases=("optimizer", "save")),
    term("kept for the backward pass", 5, group="activations", phases=("forward", "head", "backward start")),
    term("one small thing", 0.01, phases=("optimizer",)),
    term("another small thing", 0.02, phases=("optimizer",)),
    term("gaps", 1, group="overhead", place="reserved"),
    term("context", 0.5, group="overhead", place="driver"),
    term("loading", 30, group="data", phases=("load",), place="host"),
    term("checkpoints", 100, group="checkpoints", phases=("save",), place="disk"),
)


def report(
    terms: tuple[Term, ...] = TERMS, *, machine: str = "4090+64GB", uncertainty: float = 0.1
) -> Report:
    place = target(parse_machine(machine), num_ranks=None)
    model = named_model("openai-community/gpt2")
    recipe = recipe_of(PLAIN, place, model.spec)
    estimate = Estimate(tier="fast", terms=terms, uncertainty=uncertainty, basis="a test", notes=("a note",))
    device = verdict(estimate, place.free_bytes, place.total_bytes)
    host = place_verdict(estimate, "host", place.host_total_bytes)
    disk = place_verdict(estimate, "disk", place.disk_free_bytes)
    return Report(
        model=model,
        target=place,
        recipe=recipe,
        workload=recipe_workload(recipe, model.spec),
        estimate=estimate,
        device=device,
        host=host,
        disk=disk,
        overall=worst(device, host, disk),
    )


def text(found: Report, width: int = 80) -> str:
    return click.unstyle("\n".join(report_lines(found, width=width)))


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    lines = [*report_lines(report(), width=width), *explained_lines(report(), width=width)]
    plain = [click.unstyle(line) for line in lines]
    assert max(map(len, plain)) <= width
    assert plain[0].startswith("openai-community/gpt2")


def test_the_lines_of_the_table_add_up_to_its_sums() -> None:
    """8 + 4 + 2 + 0.03 in tensors, 1 in the allocator, 0.5 outside."""
    lines = text(report()).splitlines()
    table = lines[next(n for n, line in enumerate(lines) if "AT THE PEAK" in line) + 1 :]
    numbers = [float(line.split()[0]) for line in table if re.match(r" +\d", line)]
    assert numbers == [8.0, 4.0, 2.0, 0.03, 14.03, 1.0, 15.03, 0.5, 15.53]


def test_the_bar_is_as_long_as_the_screen_and_shares_it_by_size() -> None:
    bar = next(line for line in text(report()).splitlines() if line.startswith("["))
    assert len(bar) == 80
    cells = {letter: bar.count(letter) for letter in "wgoax~."}
    assert cells["w"] > cells["o"] > cells["g"] > cells["x"] > cells["a"] == 0
    assert cells["."] > 0


def test_every_verdict_has_its_sentence() -> None:
    assert "fits  needs 15.5 GiB of 23.4 GiB usable; margin 1.6 GiB, 6.3 GiB to spare" in text(report(), 120)
    tight = text(report(uncertainty=0.6), 120)
    assert "tight  needs 15.5 GiB of 23.4 GiB usable; 1.5 GiB of a margin of 9.3 GiB are not there" in tight
    large = text(report((*TERMS, term("more", 20))), 120)
    assert "does not fit  needs 35.5 GiB, 12.1 GiB more than the 23.4 GiB usable" in large
    assert "^ 23.4 GiB usable" in large
    assert "nothing that ftwiz knows makes it fit" in large


def test_a_host_that_is_too_small_decides_too() -> None:
    found = report(machine="4090+16GB")
    assert found.overall.word == "no"
    lines = " ".join(text(found).split())
    assert "does not fit needs 15.5 GiB of 23.4 GiB usable" in lines
    assert "the host: 30.0 GiB at least, and 16.0 GiB are free" in lines


def test_free_space_that_nobody_knows_is_said_so() -> None:
    assert "disk      100.0 GiB, free space unknown: checkpoints 100.0 GiB" in text(report())


def test_phases_that_such_a_run_has_not_are_not_named() -> None:
    found = text(report())
    assert "generate" not in found
    assert "reference" not in found
    reference = replace(report(), workload=replace(report().workload, stage="dpo"))
    assert "reference 9.50" in text(reference)


def test_every_term_is_explained_once_and_every_phase_added_up() -> None:
    lines = click.unstyle("\n".join(explained_lines(report(), width=120)))
    for own in TERMS:
        assert len(re.findall(rf"^\[\d+\] +{own.name}: ", lines, re.MULTILINE)) == 1
    assert "1 x 8,589,934,592 B = 8,589,934,592 B" in lines
    peak = sum(own.num_bytes for own in TERMS[:8] if "optimizer" in own.phases)
    assert f"optimizer       15.53 GiB = {peak:,} B  <- the peak" in lines
    assert "a library 1.0, a file" in lines


def test_what_a_change_does_is_a_signed_number() -> None:
    effect = Effect(
        texts=("half the length",),
        options=("--seq 512",),
        same_training=False,
        needs_hardware=False,
        process_bytes=GIB,
        host_bytes=0,
        delta_bytes=-3 * GIB,
        verdict=report().device,
    )
    lines = [click.unstyle(line) for line in effect_lines((effect,), width=80)]
    assert lines[1].split() == ["-3.00", "GiB", "fits", "--seq", "512"]
    assert lines[2].strip() == "half the length; another training"
    assert list(effect_lines((), width=80))[1] == "nothing is left to change"


def test_names_from_a_file_cannot_command_a_terminal() -> None:
    odd = term("weights\x1b[2J", 8)
    assert "\x1b[2J" not in "\n".join([*report_lines(report((odd,)), width=80)])
    assert "\x1b[2J" not in "\n".join([*explained_lines(report((odd,)), width=80)])


def test_the_json_holds_every_term_and_phase() -> None:
    found = report_json(report())
    assert len(found["estimate"]["terms"]) == len(TERMS)
    assert found["estimate"]["phases"]["optimizer"]["device"] == sum(
        t.num_bytes for t in TERMS if t.place == "device" and "optimizer" in t.phases
    )
    assert found["estimate"]["peak_phase"] == "optimizer"
    assert found["to_fit"] is None


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        (PHASES, "always"),
        (("forward",), "forward"),
        (("forward", "head", "backward start"), "forward to backward start"),
        (("load", "save"), "load, save"),
        ((), "never"),
    ],
)
def test_phases_read_as_spans(phases: tuple[PhaseName, ...], words: str) -> None:
    assert phases_text(phases) == words


def test_phases_that_are_absent_do_not_break_a_span() -> None:
    among = tuple(phase for phase in PHASES if phase not in ("generate", "reference"))
    assert phases_text(("load", "forward"), among) == "load to forward"


def test_sizes_have_the_unit_that_reads_best() -> None:
    assert (gib(3 << 20), gib(GIB)) == ("3.0 MiB", "1.0 GiB")
    assert (unit(GIB), unit(GIB - 1)) == ("GiB", "MiB")
    assert (number(GIB, 4 * GIB), number(GIB >> 10, GIB >> 1)) == ("1.00", "1.00")
