"""Greedy answers to held-out prompts, before, during and after training: what a person sees change."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..specs.events import SampleEvent

BATCH = 32
"""Prompts generated at once; short answers of a small batch cost little memory beside training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A held-out prompt, and the answer that the data gives, when it gives one."""

    messages: tuple[Mapping[str, Any], ...]
    reference: str | None

    @property
    def text(self) -> str:
        """What a person reads as the prompt: the last message."""
        return str(self.messages[-1]["content"])

    def matches(self, completion: str) -> bool | None:
        """Whether an answer is the one that the data gives; ``None`` when it gives none."""
        return None if self.reference is None else completion.strip() == self.reference.strip()


def prompts_of(rows: Iterable[Mapping[str, Any]], limit: int) -> list[Prompt]:
    """Return the first ``limit`` prompts of rows, each once; rows of plain text have none."""
    prompts: list[Prompt] = []
    for row in rows:
        if len(prompts) == limit:
            break
        prompt = _prompt(row)
        if prompt is not None and (not prompts or prompt.messages != prompts[-1].messages):
            prompts.append(prompt)
    return prompts


def _prompt(row: Mapping[str, Any]) -> Prompt | None:
    """The reference is the answer to be learned: the chosen one, and none that is to be avoided."""
    if "text" in row:
        return None
    answer_messages = row.get("completion", row.get("chosen", ()))
    messages = [*row.get("prompt", ()), *answer_messages] or row.get("messages", [])
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i > 0]
    if not answers or (row.get("prompt") and not answer_messages):
        return (
            Prompt(messages=tuple(messages), reference=None) if messages and "messages" not in row else None
        )
    last = answers[-1]
    is_avoided = row.get("label") is False
    reference = None if is_avoided else messages[last]["content"]
    return Prompt(messages=tuple(messages[:last]), reference=reference)


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    step: int,
    max_new_tokens: int,
    together: bool = False,
) -> Iterator[SampleEvent]:
    """Yield the model's greedy answer to each prompt.

    Draws no random number, and leaves the model's mode as it was.

    Args:
        model: What is trained.
        tokenizer: Its tokenizer.
        prompts: What it is asked.
        step: The optimizer step that the events name.
        max_new_tokens: Longest answer.
        together: All ranks ask, each holding a part of the weights; none may end before the others.
    """
    with _resting(model):
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            completions = _generate(model, tokenizer, batch, max_new_tokens, together=together)
            for offset, (prompt, completion) in enumerate(zip(batch, completions, strict=True)):
                yield SampleEvent(
                    t=time.time(),
                    step=step,
                    index=start + offset,
                    prompt=prompt.text,
                    completion=completion,
                    reference=prompt.reference,
                    matches=prompt.matches(completion),
                )


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int, *, together: bool
) -> list[str]:
    import torch

    texts = [
        tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    # The template has put the special tokens in. Left padding: generation goes on from the last token.
    encoded = tokenizer(
        texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
    )
    inputs = {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}
    greedy = _greedy(model, tokenizer, max_new_tokens)
    with torch.no_grad():  # FSDP keeps what it gathers here, and inference tensors cannot be trained with
        output = model.generate(**inputs, generation_config=greedy, synced_gpus=together)
    new = output[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
    return decoded


def _greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> Any:
    from transformers import GenerationConfig

    own = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=pad,
        use_cache=True,
    )


@contextmanager
def _resting(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
