"""Every method trains, holds what is planned for it, and leaves a model that answers as it was trained."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.errors import Refused
from ftwiz.engine.memory.cuts import holdings_of
from ftwiz.engine.memory.workload import workload_of
from ftwiz.engine.specs.events import RankEvent, StepEvent
from ftwiz.engine.specs.job import Job
from ftwiz.engine.worker import methods
from ftwiz.engine.worker.settings import read_settings

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

METHODS: dict[str, dict[str, Any]] = {
    "dora": {"kind": "lora", "use_dora": True},
    "rslora": {"kind": "lora", "use_rslora": True},
    "gaussian": {"kind": "lora", "init_lora_weights": "gaussian"},
    "pissa": {"kind": "lora", "init_lora_weights": "pissa", "r": 4},
    "pissa_niter": {"kind": "lora", "init_lora_weights": "pissa_niter_4", "use_rslora": True, "r": 4},
    "loraplus": {"kind": "lora", "loraplus_lr_ratio": 16},
    "saved": {"kind": "lora", "modules_to_save": ["lm_head"]},
    "oft": {"kind": "oft", "oft_block_size": 8},
    "freeze": {"kind": "freeze", "num_trainable_layers": 1},
    "freeze_head": {"kind": "freeze", "num_trainable_layers": 1, "modules_to_save": ["lm_head"]},
}
OPTIMIZERS = ("adamw_torch", "adafactor", "sgd", "rmsprop", "adagrad")
BITSANDBYTES = (
    "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "lion_32bit", "lion_8bit", "paged_lion_32bit",
    "paged_lion_8bit", "ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit",
    "rmsprop_bnb_32bit", "rmsprop_bnb_8bit",
)  # fmt: skip

WORK_ALL = """
import json, sys, torch
from pathlib import Path
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.worker import session
from ftwiz.engine.worker.peaks import Peaks
from ftwiz.engine.worker.settings import Rank
from ftwiz.engine.worker.voice import Voice

ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
said = {}
save_whole = session.save_whole

def answer(model):
    with torch.no_grad():
        return model.eval()(ids).logits

def save(trainer, folder):
    said[str(Path(folder).parent)] = answer(trainer.model)
    save_whole(trainer, folder)

session.save_whole = save
apart = {}
for folder in sys.argv[2:]:
    run, rank = RunFolder(Path(folder)), Rank(rank=0, local_rank=0, world_size=1)
    session.run_session(run, rank, Voice(run, rank), peaks=Peaks(0), resume_from=None)
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM
    done = Path(folder) / "model"
    kind = AutoPeftModelForCausalLM if (done / "adapter_config.json").is_file() else AutoModelForCausalLM
    apart[folder] = float((answer(kind.from_pretrained(done)) - said[folder]).abs().max())
Path(sys.argv[1]).write_text(json.dumps(apart))
"""


@dataclass(frozen=True)
class Trained:
    """A finished run, and how far its model, read back, is from the one that was trained."""

    losses: list[float]
    num_trained: int
    num_planned: int
    apart: float
    folder: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, lab_of: Callable[[Path], Any]) -> dict[str, Trained]:
    """All methods and optimizers, six steps each, in one process."""
    lab = lab_of(tmp_path_factory.mktemp("methods"))
    runs = {name: lab.make(method=method) for name, method in METHODS.items()}
    runs |= {name: lab.make(train={"optim": name}) for name in (*OPTIMIZERS, *BITSANDBYTES)}
    report = lab.folder / "apart.json"
    done = lab.python("-c", WORK_ALL, str(report), *(str(run.path) for run in runs.values()), cwd=lab.folder)
    assert done.returncode == 0, done.stderr
    apart = json.loads(report.read_text())
    return {name: _trained(lab, run, METHODS.get(name), apart[str(run.path)]) for name, run in runs.items()}


def _trained(lab: Any, run: Any, method: dict[str, Any] | None, apart: float) -> Trained:
    job = Job.model_validate(
        {
            "model": {"name_or_path": str(lab.model)},
            "data": {"path": str(lab.rows)},
            "method": method or {"kind": "full"},
        }
    )
    planned = holdings_of(workload_of(job, lab.spec, read_settings(run).strategy)).num_trained
    rank = lab.events(run, RankEvent)[0]
    losses = [event.loss for event in lab.events(run, StepEvent)]
    return Trained(losses, rank.num_trainable_parameters, planned, apart, run.final_model)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_as_many_weights_as_are_planned(trained: dict[str, Trained], name: str) -> None:
    assert trained[name].num_trained == trained[name].num_planned > 0


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_leaves_answers_as_it_was_trained(trained: dict[str, Trained], name: str) -> None:
    assert trained[name].losses[-1] < trained[name].losses[0]
    assert trained[name].apart < 1e-4


def test_a_finished_pissa_is_a_plain_lora_of_twice_the_rank(trained: dict[str, Trained]) -> None:
    config = json.loads((trained["pissa"].folder / "adapter_config.json").read_text())
    assert (config["init_lora_weights"], config["r"]) == (True, 8)
    assert not list(trained["pissa"].folder.parent.glob("pissa*"))


@pytest.mark.parametrize("name", [*OPTIMIZERS, *BITSANDBYTES])
def test_an_optimizer_makes_the_loss_fall(trained: dict[str, Trained], name: str) -> None:
    assert trained[name].losses[-1] < trained[name].losses[0]
    assert trained[name].apart < 1e-4


def test_an_optimizer_whose_package_is_missing_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "find_spec", {"bitsandbytes": object()}.get)
    methods.check_installed("adamw_torch_fused")
    methods.check_installed("lion_8bit")
    with pytest.raises(
        Refused, match="galore_adamw needs galore_torch, which this Python does not have"
    ) as no:
        methods.check_installed("galore_adamw")
    assert no.value.hint == "pip install --no-deps galore-torch, or take adamw_torch_fused"
