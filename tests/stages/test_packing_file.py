"""How train.yaml says that weights are packed, read back by the library that packs them."""

import pytest
import yaml

from ftwiz.engine.backends import backend
from ftwiz.engine.specs.data import DataSummary
from ftwiz.engine.specs.job import Job
from ftwiz.engine.specs.plan import Strategy
from ftwiz.engine.stages import train_file

JOB = Job.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d.jsonl"}})
BASE: dict[str, object] = {
    "device_kind": "cuda",
    "num_processes": 2,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "gradient_checkpointing": True,
    "mixed_precision": "bf16",
}


def strategy(name: str, **changed: object) -> Strategy:
    return Strategy(backend=name, **BASE | changed)  # type: ignore[arg-type]


def section(found: Strategy) -> dict[str, object]:
    data = DataSummary(path="d.jsonl", format="prompt_completion", shape="prompt_completion", num_rows=9)
    loaded: dict[str, dict[str, object]] = yaml.safe_load(train_file(JOB, found, data))
    return loaded["model"]


@pytest.mark.parametrize(
    ("found", "storage"),
    [
        (strategy("single", num_processes=1, quantization="nf4"), "uint8"),
        (strategy("ddp", quantization="nf4"), "uint8"),
        (strategy("zero", zero_stage=2, quantization="nf4"), "uint8"),
        (strategy("zero", zero_stage=3, quantization="nf4"), "bfloat16"),
        (strategy("fsdp", quantization="nf4"), "bfloat16"),
        (strategy("fsdp", quantization="nf4", mixed_precision="fp16"), "float16"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.backend}{value.zero_stage}",
)
def test_bits_that_are_split_are_stored_in_the_format_of_the_computation(
    found: Strategy, storage: str
) -> None:
    transformers = pytest.importorskip("transformers", reason="the training stack is not installed")
    model = section(found)
    written = model["quantization"]
    assert isinstance(written, dict)
    assert (written["bnb_4bit_quant_storage"], written["bnb_4bit_compute_dtype"]) == (storage, model["dtype"])
    read = transformers.BitsAndBytesConfig(**written)
    assert read.quantization_method() == "nf4"
    assert read.bnb_4bit_use_double_quant
    assert str(read.bnb_4bit_quant_storage) == f"torch.{storage}"


def test_eight_bits_are_one_word_and_unpacked_is_none() -> None:
    assert section(strategy("ddp", quantization="int8"))["quantization"] == {"load_in_8bit": True}
    assert "quantization" not in section(strategy("ddp"))


@pytest.mark.parametrize(("packing", "sends"), [("none", True), ("nf4", False)])
def test_fsdp_s_first_rank_sends_weights_only_unpacked(packing: str, sends: bool) -> None:
    found = strategy("fsdp", quantization=packing)
    written = yaml.safe_load(backend("fsdp").files(found, JOB, None)["accelerate.yaml"])
    assert written["fsdp_config"]["fsdp_cpu_ram_efficient_loading"] is sends
    variables = backend("fsdp").environment(found)
    assert variables["FSDP_CPU_RAM_EFFICIENT_LOADING"] == str(sends).lower()
