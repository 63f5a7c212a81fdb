"""The script that a person would write with TRL for the same training: what the worker is measured against.

usage: python bench/plain_trl.py TRAIN_YAML REPORT_JSON

Reads the trainer's arguments from a run's train.yaml, so that both train the same. The rows are read by
datasets from the job's file, which must be question/answer lines.
"""

import json
import os
import sys
import time
from pathlib import Path

import yaml
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """Notes when every step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the time."""
        self.times.append(time.time())


def to_chat(row: dict[str, str]) -> dict[str, object]:
    """Return a question/answer row in the trainer's form."""
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "completion": [{"role": "assistant", "content": row["answer"]}],
    }


def main() -> None:
    """Train, then write the losses, the tokens and the time of every step."""
    settings = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf8"))
    report = Path(sys.argv[2])
    rows = load_dataset("json", data_files=settings["data"]["path"], split="train")
    rows = rows.map(to_chat, remove_columns=rows.column_names)
    where = settings["model"]["name_or_path"]
    arguments = settings["trainer"] | {"output_dir": str(report.parent / "plain"), "save_strategy": "no"}
    method = {name: value for name, value in settings["method"].items() if name != "kind"}
    clock = Clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(where, dtype="float32"),
        args=SFTConfig(**arguments),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(where),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **method) if method else None,
        callbacks=[clock],
    )
    trainer.train()
    body = {
        "times": clock.times,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "num_tokens": trainer.state.num_input_tokens_seen,
    }
    report.write_text(json.dumps(body), encoding="utf8")
    sys.stdout.flush()
    os._exit(0)  # gloo may abort in interpreter shutdown


if __name__ == "__main__":
    main()
