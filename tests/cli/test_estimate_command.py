"""``ftwiz estimate``: what training takes, for a person, for a script, and for what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.specs.estimate import PHASES

pytestmark = pytest.mark.timeout(60)

GPT2 = "openai-community/gpt2"
LLAMA = "meta-llama/Llama-3.1-8B"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 256,
}


@pytest.fixture
def tiny(home: Path) -> Path:
    folder = home / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def asked(run_ftwiz: Any, *arguments: str) -> dict[str, Any]:
    done = run_ftwiz("estimate", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_answer_has_a_verdict_a_bar_and_terms(run_ftwiz: Any) -> None:
    options = ("--method", "qlora", "--seq", "4096", "--machine", "2x4090")
    done = run_ftwiz("estimate", LLAMA, *options, env={"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == f"{LLAMA}: QLoRA r=16 on all linear layers, sft"
    assert any("PER DEVICE, AT THE PEAK" in line and line.endswith("WHEN") for line in lines)
    assert any(line.startswith("[w") and line.endswith("]") for line in lines)
    assert any("torch.cuda.max_memory_allocated" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_the_numbers_of_a_table_add_up(run_ftwiz: Any) -> None:
    found = asked(run_ftwiz, LLAMA, "--method", "full", "--backend", "zero2", "--machine", "8xH100")
    estimate = found["estimate"]
    for phase in PHASES:
        held = sum(
            term["num_bytes"]
            for term in estimate["terms"]
            if term["place"] == "device" and phase in term["phases"]
        )
        assert held == estimate["phases"][phase]["device"]
    assert estimate["allocated_bytes"] == max(estimate["phases"][phase]["device"] for phase in PHASES)
    assert estimate["allocated_bytes"] <= estimate["reserved_bytes"] <= estimate["process_bytes"]


def test_the_json_has_keys_that_stay(run_ftwiz: Any, tiny: Path) -> None:
    found = asked(run_ftwiz, str(tiny), "--machine", "4090")
    assert list(found) == [
        *("version", "model", "machine", "workload", "estimate", "verdict", "changes", "to_fit", "notes"),
    ]
    assert found["version"] == 1
    assert found["model"]["where"] == "folder"
    assert list(found["verdict"]) == ["word", "device", "host", "disk"]
    assert found["machine"]["total_bytes"] == 24564 << 20
    assert found["workload"]["adapter"]["rank"] == 16
    assert "model" not in found["workload"]
    assert {change["options"][0].split()[0] for change in found["changes"]} >= {"--optim", "--seq"}


def test_explaining_shows_every_formula_and_what_choices_change(run_ftwiz: Any, tiny: Path) -> None:
    done = run_ftwiz("estimate", str(tiny), "--machine", "2x4090", "--explain")
    assert done.returncode == 0
    for heading in ("EVERY TERM", "EVERY PHASE", "WHAT ONE CHANGE WOULD DO"):
        assert heading in done.stdout
    assert "<- the peak" in done.stdout
    assert "--backend fsdp" in done.stdout


def test_without_an_accelerator_device_and_host_are_one_memory(run_ftwiz: Any, tiny: Path) -> None:
    done = run_ftwiz("estimate", str(tiny), "--machine", "8cpu+16GB")
    assert done.returncode == 0
    assert "on the CPU, float32" in done.stdout
    assert "device and host are one memory" in " ".join(done.stdout.split())


def test_more_than_there_is_does_not_fit_and_says_what_would(run_ftwiz: Any) -> None:
    options = (LLAMA, "--method", "full", "--machine", "8x4090+1TB")
    found = asked(run_ftwiz, *options)
    assert found["verdict"]["word"] == "no"
    assert found["verdict"]["device"]["free_bytes"] < found["verdict"]["device"]["needed_bytes"]
    done = run_ftwiz("estimate", *options)
    assert "does not fit" in done.stdout
    assert "to fit" in done.stdout


def test_half_the_devices_can_be_taken(run_ftwiz: Any) -> None:
    found = asked(run_ftwiz, GPT2, "--machine", "8xA100-80GB", "--devices", "4", "--backend", "fsdp")
    assert found["workload"]["sharding"]["num_shards"] == 4
    assert found["workload"]["gradient_accumulation_steps"] == 4


def test_a_model_folder_may_hold_a_configuration_alone(run_ftwiz: Any, tiny: Path) -> None:
    assert sorted(path.name for path in tiny.iterdir()) == ["config.json"]
    found = asked(run_ftwiz, str(tiny), "--method", "full", "--machine", "4090")
    weights = [term for term in found["estimate"]["terms"] if term["name"] == "weights"]
    assert weights[0]["num_bytes"] >= found["model"]["num_parameters"] * 4


@pytest.mark.train
@pytest.mark.timeout(200)
def test_the_exact_tier_is_near_the_fast_one(run_ftwiz: Any, tiny: Path) -> None:
    larger = CONFIG | {
        "num_hidden_layers": 6,
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "vocab_size": 8192,
    }
    (tiny / "config.json").write_text(json.dumps(larger))
    options = (str(tiny), "--method", "full", "--machine", "4090", "--json")
    exact = run_ftwiz("estimate", *options, "--exact", timeout=150)
    assert exact.returncode == 0, exact.stderr
    traced = json.loads(exact.stdout)["estimate"]
    fast = asked(run_ftwiz, *options)["estimate"]
    assert (traced["tier"], fast["tier"]) == ("exact", "fast")
    assert 0 < traced["uncertainty"] < 1, "each tier says its own"
    assert traced["allocated_bytes"] == pytest.approx(fast["allocated_bytes"], rel=0.05)
    assert traced["phases"]["forward"]["driver"] == fast["phases"]["forward"]["driver"] > 0
    assert traced["host_bytes"] == fast["host_bytes"]


WRONG = {
    "an unknown model": (["nosuch/model"], "neither here nor in the Hugging Face cache"),
    "a misspelt model": (["meta-lama/Llama-3.1-8b"], "neither here nor"),
    "no model": ([""], "is no model's name"),
    "a very long name": (["x" * 5000], "is no model's name"),
    "an empty folder": (["."], "config.json: no such file or directory"),
    "the demo": (["ftwiz:demo"], "is built when it is trained"),
    "length zero": ([GPT2, "--seq", "0"], "'--seq'"),
    "no number": ([GPT2, "--seq", "nan"], "'--seq'"),
    "a length of forty digits": ([GPT2, "--seq", "9" * 40], "'--seq'"),
    "a length of five thousand digits": ([GPT2, "--seq", "9" * 5000], "'--seq'"),
    "a negative micro batch": ([GPT2, "--micro-batch", "-3"], "'--micro-batch'"),
    "devices that are not there": (
        [GPT2, "--devices", "4", "--machine", "2x4090"],
        "--devices 4: there are 2",
    ),
    "no machine": ([GPT2, "--machine", "3xfoo"], "unknown accelerator 'foo'"),
    "an unknown optimizer": ([GPT2, "--optim", "adamw_8bt"], "--optim 'adamw_8bt'"),
    "an unknown method": ([GPT2, "--method", "ful"], "'--method'"),
    "an unknown layer": ([GPT2, "--targets", "qproj"], "--targets qproj: no layer is named qproj"),
    "control characters": ([GPT2, "--targets", "\x1b]52;c"], "--targets"),
    "DoRA on fused experts": (["mistralai/Mixtral-8x7B-v0.1", "--method", "dora"], "DoRA does not work"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_one_line_and_exit_2(case: str, run_ftwiz: Any) -> None:
    arguments, text = WRONG[case]
    done = run_ftwiz("estimate", *arguments, timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert text in first
    assert len(rest) <= 1
    assert len(first) < 700
    assert "\x1b" not in done.stderr


CONFIGS = {
    "a negative number of layers": (json.dumps(CONFIG | {"num_hidden_layers": -3}), "num_hidden_layers"),
    "a huge vocabulary": (json.dumps(CONFIG | {"vocab_size": 10**15}), "vocab_size"),
    "a number that is none": (json.dumps(CONFIG | {"hidden_size": float("nan")}), "hidden_size"),
    "text for a number": (json.dumps(CONFIG | {"hidden_size": "big"}), "hidden_size"),
    "no model type": (json.dumps({"hidden_size": 4}), "model_type is missing"),
    "a model type that nobody has": (json.dumps({"model_type": "nonsense"}), "nonsense"),
    "nothing": ("", "is empty"),
    "no JSON": ("{", "not valid JSON"),
    "a list": ("[]", "must hold keys and values"),
    "a thousand levels": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deep"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_is_one_line_that_names_the_key(
    case: str, run_ftwiz: Any, tiny: Path
) -> None:
    text, named = CONFIGS[case]
    (tiny / "config.json").write_text(text)
    done = run_ftwiz("estimate", str(tiny), timeout=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


def test_a_configuration_that_holds_itself_is_read_once(run_ftwiz: Any, tiny: Path) -> None:
    nested: dict[str, Any] = dict(CONFIG)
    for _ in range(50):
        nested = {**CONFIG, "text_config": nested}
    (tiny / "config.json").write_text(json.dumps(nested))
    done = run_ftwiz("estimate", str(tiny), "--machine", "4090")
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
