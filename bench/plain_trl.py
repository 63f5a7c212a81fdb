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

STARTED = time.time()


def main() -> None:
    """Train, then write the losses, the tokens and the time of every step."""
    import yaml
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    settings = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf8"))
    report = Path(sys.argv[2])
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            times.append(time.time())

    def to_chat(row: dict[str, str]) -> dict[str, object]:
        return {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }

    rows = load_dataset("json", data_files=settings["data"]["path"], split="train")
    rows = rows.map(to_chat, remove_columns=rows.column_names)
    where = settings["model"]["name_or_path"]
    arguments = settings["trainer"] | {"output_dir": str(report.parent / "plain"), "save_strategy": "no"}
    method = {name: value for name, value in settings["method"].items() if name != "kind"}
    adapter = None
    if method:
        from peft import LoraConfig

        adapter = LoraConfig(task_type="CAUSAL_LM", **method)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(where, dtype="float32"),
        args=SFTConfig(**arguments),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(where),
        peft_config=adapter,
        callbacks=[Clock()],
    )
    trainer.train()
    body = {
        "started": STARTED,
        "times": times,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "num_tokens": trainer.state.num_input_tokens_seen,
    }
    report.write_text(json.dumps(body), encoding="utf8")
    sys.stdout.flush()
    os._exit(0)  # gloo may abort in interpreter shutdown


if __name__ == "__main__":
    main()
