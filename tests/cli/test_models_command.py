"""``ftwiz models``: this machine first, then the catalogue; a whole name shows what a model is made of."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(60)

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


def test_a_query_lists_models_with_their_size_licence_and_place(run_ftwiz: Any) -> None:
    done = run_ftwiz("models", "llama", "3.1", "8b")
    assert (done.returncode, done.stderr) == (0, "")
    head, row = done.stdout.splitlines()
    assert head.split() == ["MODEL", "PARAMETERS", "ACTIVE", "CONTEXT", "LICENCE", "GATED", "WHERE"]
    assert row.split() == [
        *("meta-llama/Llama-3.1-8B", "8.03B", "-", "131,072"),
        *("Llama", "3.1", "Community", "License", "yes", "catalogue"),
    ]


def test_folders_here_come_first(run_ftwiz: Any, tiny: Path) -> None:
    (tiny.parent / "broken").mkdir()
    (tiny.parent / "broken" / "config.json").write_text("{")
    rows = json.loads(run_ftwiz("models", "--json").stdout)
    assert [(row["id"], row["where"]) for row in rows[:2]] == [
        ("./broken", "folder, no weights"),
        ("./tiny-llama", "folder, no weights"),
    ]
    assert "not valid JSON" in rows[0]["problem"]
    assert rows[1]["num_parameters"] == 2 * 256 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    assert len(rows) == 2 + 193


def test_a_whole_name_shows_the_groups(run_ftwiz: Any) -> None:
    done = run_ftwiz("models", "Qwen/Qwen3-30B-A3B")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["experts", "28,991,029,248", "95.0%"] in lines
    assert ["total", "30,532,122,624", "100.0%"] in lines
    assert ["LoRA,", "all-linear", "996,507,648"] in lines
    found = json.loads(run_ftwiz("models", "Qwen/Qwen3-30B-A3B", "--json").stdout)
    assert found["num_active_parameters"] == 3_353_032_704
    assert found["spec"]["parameters"]["groups"]["router"] == 12_582_912


def test_a_folder_is_a_whole_name_too(run_ftwiz: Any, tiny: Path) -> None:
    assert "total" in run_ftwiz("models", "./tiny-llama").stdout
    (tiny / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": -3}))
    done = run_ftwiz("models", str(tiny))
    assert (done.returncode, done.stdout) == (2, "")
    assert "num_hidden_layers must be a whole number from 1 to 10,000; got -3" in done.stderr


def test_nothing_found_is_said_beside_the_data(run_ftwiz: Any) -> None:
    done = run_ftwiz("models", "zzzzzzzzzz")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no model fits 'zzzzzzzzzz'" in done.stderr
    assert json.loads(run_ftwiz("models", "zzzzzzzzzz", "--json").stdout) == []


@pytest.mark.parametrize("query", ["x" * 5000, "../../etc", "~nobody-here/x", "\x1b[2J", "-x"])
def test_odd_queries_are_only_queries(run_ftwiz: Any, query: str) -> None:
    done = run_ftwiz("models", "--", query)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
