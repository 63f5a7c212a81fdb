"""Writes what is planned where into docs/planning.md: ``python docs/make_planning.py``."""  # noqa: INP001 - a script

from collections.abc import Iterator
from pathlib import Path

from ftwiz.engine.errors import Refused
from ftwiz.engine.hardware.written import parse_machine
from ftwiz.engine.memory.verdict import gib
from ftwiz.engine.models import catalogue
from ftwiz.engine.plan import recommend
from ftwiz.engine.plan.words import label
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Plan

TARGET = Path(__file__).parent / "planning.md"
MODELS = (
    "Qwen/Qwen3-0.6B",
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-30B-A3B",
)
MACHINES = (
    "1x3060+32GB",
    "2x4090+128GB",
    "1xH100+256GB",
    "4xA10G+192GB",
    "8xA100-40GB+1100GB",
    "8xAscend 910B3+1500GB",
    "2 nodes x 8xH100+2TB",
    "16cpu+64GB",
)
START = "<!-- table: python docs/make_planning.py -->"


def rows(kind: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield model, machine, what is planned and how it is told to go, for a method."""
    for name in MODELS:
        found = catalogue.find(name)
        assert found
        spec = catalogue.spec(found)
        job = Job.model_validate(
            {
                "model": {"name_or_path": name},
                "data": {"path": "rows.jsonl"},
                "method": {"kind": kind},
                "train": {"max_length": 2048, "global_batch_size": 32},
            }
        )
        for machine in MACHINES:
            try:
                plan = recommend(job, spec, parse_machine(machine))
            except Refused as refusal:
                needs = (refusal.hint or "").partition("; plan.ignore_estimate")[0]
                yield name, machine, "refused", needs
            else:
                yield name, machine, _what(plan), _how(plan)


def _what(plan: Plan) -> str:
    strategy = plan.strategy
    ranks = "" if strategy.num_processes == 1 else f" on {strategy.num_processes}"
    checkpointing = ", checkpointing" if strategy.gradient_checkpointing else ""
    sizes = f"{strategy.micro_batch_size} x {strategy.gradient_accumulation_steps}"
    word = plan.verdict.word if plan.verdict and plan.verdict.word != "fits" else ""
    return f"{label(strategy)}{ranks}, {sizes}{checkpointing}" + (f" ({word})" if word else "")


def _how(plan: Plan) -> str:
    speed = f"{plan.speed.tokens_per_second:,.0f} tokens/s" if plan.speed else "n/a"
    if plan.verdict is None or plan.verdict.free_bytes is None:
        return speed
    return f"{speed}; {gib(plan.verdict.needed_bytes)} of {gib(plan.verdict.free_bytes)}"


def table() -> str:
    """Return the tables of the page."""
    parts = []
    for kind, title in (("lora", "LoRA"), ("full", "All weights")):
        lines = [f"### {title}", "", "| model | machine | plan | predicted |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows(kind)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    before = TARGET.read_text(encoding="utf8").partition(START)[0]
    TARGET.write_text(f"{before}{START}\n\n{table()}", encoding="utf8")
