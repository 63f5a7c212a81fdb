"""What was found and decided, in short plain words for either face of the wizard."""

from collections.abc import Mapping

from ...engine.specs.data import DataSummary
from ...engine.specs.job import DEMO_MODEL
from ...engine.specs.machine import CPU, Device, Machine
from ...engine.specs.model import ModelSpec
from ...engine.specs.plan import Plan
from ..text import count, percent, safe, shorten, size
from .check import Review
from .state import GOAL_WORDS, METHOD_WORDS, Answers, Field

_FORMATS = {
    "messages": "conversations (messages)",
    "sharegpt": "conversations (ShareGPT)",
    "alpaca": "instructions and outputs (Alpaca)",
    "prompt_completion": "questions and answers",
    "text": "plain text",
    "self_instruct": "instructions and outputs (Self-Instruct)",
    "preference": "preference pairs",
    "preference_implicit": "preference pairs (the prompt in both)",
    "preference_alpaca": "preference pairs (Alpaca)",
    "preference_sharegpt": "preference pairs (ShareGPT)",
    "unpaired": "rated answers",
    "unpaired_alpaca": "rated answers (Alpaca)",
    "unpaired_messages": "rated answers (messages)",
    "unpaired_sharegpt": "rated answers (ShareGPT)",
    "prompt_only": "prompts",
    "mixed": "files of several formats",
}
_PRECISIONS = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}


def machine_words(machine: Machine) -> str:
    """Return what was detected: ``2 x NVIDIA L40S, 44.1 of 44.5 GiB free each``."""
    host = machine.host
    cpus = f"{count(host.num_cpus)} CPU{'' if host.num_cpus == 1 else 's'}"
    memory = f"{size(host.available_bytes)} of {size(host.total_bytes)} memory free"
    if not machine.devices:
        return f"no accelerator found: training on {cpus}, {memory}"
    return f"{'; '.join(_devices(machine.devices))}; {cpus}, {memory}"


def _devices(devices: tuple[Device, ...]) -> list[str]:
    """Group devices of one name; of a group the least free counts."""
    groups: dict[str, list[Device]] = {}
    for device in devices:
        groups.setdefault(device.name, []).append(device)
    words = []
    for name, group in groups.items():
        free = [device.free_bytes for device in group if device.free_bytes is not None]
        least = min(free) if len(free) == len(group) else None
        many = f"{len(group)} x " if len(group) > 1 else ""
        each = " each" if len(group) > 1 else ""
        words.append(f"{many}{safe(name)}, {size(least)} of {size(group[0].total_bytes)} free{each}")
    return words


def note_words(field: Field, answers: Answers, review: Review, width: int) -> list[str]:
    """Return what was found about an answer, and for data also its first row."""
    if field == "model":
        return [model_words(answers.model, review.model)]
    if field == "method":
        return [METHOD_WORDS.get(answers.method, "another kind of the job file's: see f1")]
    if field == "goal":
        return [GOAL_WORDS[answers.stage]]
    if field == "settings" and not answers.settings:
        return ["none: defaults, and what is planned for the machine"]
    if field == "data" and review.data is not None:
        share = 0.0 if review.job is None or review.data.num_eval_rows else review.job.data.eval_fraction
        held_out = f", {percent(share)} of them held out" if share else ""
        return [data_words(review.data) + held_out, first_row_words(review.data, width)]
    return []


def model_words(name: str, spec: ModelSpec | None) -> str:
    """Return what is known of the model."""
    if name.strip() == DEMO_MODEL:
        return "a tiny Llama that ftwiz builds itself; nothing is downloaded"
    if spec is None:
        return "from the Hugging Face hub; downloaded when training starts"
    parts = [safe(spec.architecture or spec.model_type)]
    if spec.num_layers is not None:
        parts.append(f"{spec.num_layers} layers")
    if spec.hidden_size is not None:
        parts.append(f"hidden size {count(spec.hidden_size)}")
    if spec.max_position_embeddings is not None:
        parts.append(f"up to {count(spec.max_position_embeddings)} tokens")
    return ", ".join(parts)


def data_words(summary: DataSummary) -> str:
    """Return format and number of rows, and what is not used."""
    if summary.num_rows is None:
        rows = "rows not counted (large file)"
    else:
        rows = f"{count(summary.num_rows)} rows"
        if summary.num_eval_rows:
            rows += f" to train on, {count(summary.num_eval_rows)} held out"
    note = f"; {safe(summary.note)}" if summary.note else ""
    return f"{_FORMATS[summary.format]}, {rows}{note}"


def first_row_words(summary: DataSummary, width: int) -> str:
    """Return the first row on one line: the question, an arrow, the answer."""
    row = summary.first_row
    if summary.shape == "text":
        return shorten(safe(str(row["text"])), width)
    question, answer = _question_and_answer(summary)
    if not answer:
        return shorten(safe(question), width)
    arrow = " -> "
    room = max(0, width - len(arrow))
    answer = shorten(safe(answer), max(room // 2, room - len(question)))
    return f"{shorten(safe(question), max(0, room - len(answer)))}{arrow}{answer}"


def _question_and_answer(summary: DataSummary) -> tuple[str, str]:
    """Return the last turns of the first row; no answer where the row has none."""
    row = summary.first_row
    if summary.shape == "messages":
        turns = _contents(row["messages"])
        return (turns[-2] if len(turns) > 1 else "", turns[-1])
    question = (_contents(row["prompt"]) or [""])[-1]
    if summary.shape == "prompt_only":
        return question, ""
    if summary.shape == "preference":
        return question, f"{_contents(row['chosen'])[-1]}, not: {_contents(row['rejected'])[-1]}"
    mark = "" if summary.shape != "unpaired" else "(liked) " if row["label"] else "(disliked) "
    return question, f"{mark}{_contents(row['completion'])[0]}"


def _contents(messages: object) -> list[str]:
    assert isinstance(messages, list)
    return [str(message.get("content") or "") for message in messages if isinstance(message, Mapping)]


def plan_words(plan: Plan) -> str:
    """Return the plan in one sentence."""
    strategy = plan.strategy
    where = "the CPU" if strategy.device_kind == CPU else "one device"
    if strategy.num_processes > 1:
        kind = "processes on the CPU" if strategy.device_kind == CPU else "devices side by side"
        where = f"{strategy.num_processes} {kind}"
    times = strategy.gradient_accumulation_steps
    batch = f"{strategy.micro_batch_size} sequences at once"
    if times > 1 or strategy.num_processes > 1:
        batch += f", {strategy.global_batch_size} per step"
    extra = ", activations recomputed" if strategy.gradient_checkpointing else ""
    return f"{where}, {batch}, {_PRECISIONS[strategy.mixed_precision]}{extra}"


def reason_words(plan: Plan) -> list[str]:
    """Return each reason as ``what: why``; that one process is one process needs none."""
    is_one = plan.strategy.num_processes == 1
    reasons = (reason for reason in plan.reasons if not (is_one and reason.about == "num_processes"))
    return [f"{reason.about.replace('_', ' ')}: {reason.text}" for reason in reasons]
