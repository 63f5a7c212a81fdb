"""Writes what each preset becomes where into docs/presets.md: ``python docs/make_presets.py``."""  # noqa: INP001 - a script

from collections.abc import Iterator
from pathlib import Path

from ftwiz.engine.errors import FtwizError
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.job import load_preset, preset_names
from ftwiz.engine.memory.verdict import gib
from ftwiz.engine.plan.words import label
from ftwiz.engine.prepare import prepare
from ftwiz.engine.specs.plan import Plan

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "presets.md"
MACHINES = (
    "1x3060-12GB+32GB",
    "2x4090+128GB",
    "1xH100+256GB",
    "4xA10G+192GB",
    "8xA100-40GB+1100GB",
    "8xAscend 910B-64GB+1500GB",
    "2 nodes x 8xA100-80GB+1TB",
    "16cpu+64GB",
)
START = "<!-- presets: python docs/make_presets.py -->"


def about(name: str) -> list[str]:
    """Return the lines of a preset's first comment: the command, nothing, and what it is."""
    text = (ROOT / "presets" / f"{name}.yaml").read_text(encoding="utf8")
    lines = text.partition("version: 1")[0].splitlines()
    return [line.removeprefix("#").removeprefix(" ") for line in lines]


def planned(name: str, machine: str) -> tuple[str, str]:
    """Return what a preset is planned as on a machine, and the prediction or what it would need."""
    try:
        plan = prepare(load_preset(name), parse_machine(machine)).plan
    except FtwizError as refusal:
        needs = (refusal.hint or "").partition("; plan.ignore_estimate")[0]
        return "refused", f"{refusal.message.partition(':')[0]}; {needs}"
    return _what(plan), _how(plan)


def _what(plan: Plan) -> str:
    strategy = plan.strategy
    ranks = "" if strategy.num_processes == 1 else f" on {strategy.num_processes}"
    checkpointing = ", checkpointing" if strategy.gradient_checkpointing else ""
    word = f" ({plan.verdict.word})" if plan.verdict and plan.verdict.word != "fits" else ""
    sizes = f"{strategy.micro_batch_size} x {strategy.gradient_accumulation_steps}"
    return f"{label(strategy)}{ranks}, {sizes}{checkpointing}{word}"


def _how(plan: Plan) -> str:
    speed = f"{plan.speed.tokens_per_second:,.0f} tokens/s" if plan.speed else "no estimate"
    verdict = plan.verdict
    if verdict is None or verdict.free_bytes is None:
        return speed
    return f"{speed}; {gib(verdict.needed_bytes)} of {gib(verdict.free_bytes)}"


def _sections() -> Iterator[str]:
    for name in preset_names():
        command, _, *words = about(name)
        table = ["| machine | plan | predicted |", "|---|---|---|"]
        table += [f"| {machine} | {' | '.join(planned(name, machine))} |" for machine in MACHINES]
        is_command = command.startswith("ftwiz ")
        shown = f"```sh\n{command}\n```" if is_command else command
        text = "\n".join(line for line in words if not line.startswith("     "))
        yield "\n\n".join([f"## {name}", shown, text.strip(), "\n".join(table)])


if __name__ == "__main__":
    before = TARGET.read_text(encoding="utf8").partition(START)[0]
    TARGET.write_text(f"{before}{START}\n\n" + "\n\n".join(_sections()) + "\n", encoding="utf8")
