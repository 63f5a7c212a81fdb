"""The table of facts: every row can be found, says where it is from, and never overrules a driver."""

import json
import re
from pathlib import Path

import pytest

from ftwiz.engine.hardware import catalogue
from ftwiz.engine.hardware.catalogue import FILE, accelerators, architectures, find, with_facts
from ftwiz.engine.specs.machine import Device


def device(name: str, **fields: object) -> Device:
    known = {"kind": "cuda", "index": 0, "name": name, "vendor": "nvidia"} | fields
    return Device(**known)  # type: ignore[arg-type]


def test_every_row_has_sources_that_are_explained_and_patterns_that_compile() -> None:
    sources = json.loads(FILE.read_bytes())["sources"]
    rows = (*accelerators(), *architectures())
    for row in rows:
        assert row.sources, row
        assert set(row.sources) <= sources.keys(), row
        assert re.compile(row.match)
    used = {source for row in rows for source in row.sources}
    assert used == sources.keys()


def test_rates_are_in_their_units() -> None:
    for row in accelerators():
        assert row.bandwidth_gb_per_second is None or 50 <= row.bandwidth_gb_per_second <= 20_000, row
        assert row.dense_bf16_tflops is None or 10 <= row.dense_bf16_tflops <= 10_000, row
        if row.memory_gb is not None and row.memory_mib is not None:
            assert 0.85 < row.memory_mib / 1024 / row.memory_gb < 1.08, row


@pytest.mark.parametrize(
    ("name", "bandwidth", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 3350, 989),
        ("NVIDIA H100 PCIe", 2000, 756),
        ("NVIDIA A100-SXM4-40GB", 1555, 312),
        ("NVIDIA A100-SXM4-80GB", 2000, 312),
        ("NVIDIA A100 80GB PCIe", 1940, 312),
        ("NVIDIA A10", 600, 125),
        ("NVIDIA A10G", 600, 70),
        ("NVIDIA L40S", 864, 362),
        ("NVIDIA L4", 300, 121),
        ("NVIDIA GeForce RTX 4090", 1008, 165.2),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA GeForce RTX 2080 Ti", 616, None),
        ("NVIDIA GB200", 8000, 2500),
        ("NVIDIA GH200 480GB", 4000, 989),
        ("NVIDIA H200", 4800, 989),
    ],
)
def test_a_name_as_the_driver_says_it_finds_its_rates(
    name: str, bandwidth: float | None, tflops: float | None
) -> None:
    known = with_facts(device(name))
    assert known.bandwidth_bytes_per_second == (None if bandwidth is None else bandwidth * 1e9)
    assert known.dense_bf16_flops_per_second == (None if tflops is None else tflops * 1e12)
    assert known.total_bytes is None, "memory is never known from a name"


@pytest.mark.parametrize(
    "name", ["Graphics Device", "AMD Radeon Graphics", "NVIDIA GeForce RTX 3060 Laptop GPU", "", "H10000"]
)
def test_an_unknown_name_gets_no_guess(name: str) -> None:
    assert find(name) is None
    assert with_facts(device(name)) == device(name)


@pytest.mark.parametrize(
    ("architecture", "bf16", "fp8", "flash_2", "flash_3"),
    [
        ("sm_70", False, False, False, False),
        ("sm_75", False, False, False, False),
        ("sm_80", True, False, True, False),
        ("sm_86", True, False, True, False),
        ("sm_87", True, False, True, False),
        ("sm_89", True, True, True, False),
        ("sm_90", True, True, True, True),
        ("sm_100", True, True, True, False),
        ("sm_121", True, True, True, False),
        ("gfx942", True, True, True, False),
        ("Ascend910A", False, False, False, False),
        ("Ascend910ProB", False, False, False, False),
        ("Ascend910B3", True, False, None, False),
        ("Ascend910_9382", True, False, None, False),
        ("gaudi2", True, True, False, False),
        ("gfx9999", None, None, None, None),
    ],
)
def test_what_a_chip_can_do_comes_from_its_architecture(
    architecture: str, bf16: bool | None, fp8: bool | None, flash_2: bool | None, flash_3: bool | None
) -> None:
    known = with_facts(device("a name that says H100 80GB HBM3", architecture=architecture))
    assert (known.supports_bf16, known.supports_fp8) == (bf16, fp8)
    assert (known.supports_flash_attention_2, known.supports_flash_attention_3) == (flash_2, flash_3)


def test_a_name_alone_says_nothing_about_what_a_chip_can_do() -> None:
    known = with_facts(device("NVIDIA H100 80GB HBM3"))
    assert (known.supports_bf16, known.supports_fp8) == (None, None)


def test_what_the_driver_said_stands() -> None:
    read = device("Tesla T4", architecture="sm_75", supports_bf16=True, bandwidth_bytes_per_second=1.0)
    known = with_facts(read)
    assert (known.supports_bf16, known.bandwidth_bytes_per_second) == (True, 1.0)


def test_a_slice_does_not_get_the_rates_of_the_whole_chip() -> None:
    known = with_facts(device("NVIDIA H100 80GB HBM3", architecture="sm_90", partition="1g.10gb"))
    assert known.bandwidth_bytes_per_second is None
    assert known.supports_bf16


def test_a_vendors_name_does_not_find_another_vendors_card() -> None:
    assert find("310P3", "huawei") is not None
    assert find("310P3", "nvidia") is None


def test_the_table_agrees_with_the_collected_facts(corpus: Path) -> None:
    rows = json.loads((corpus / "accelerators.json").read_bytes())["accelerators"]
    assert len(rows) == len(accelerators())
    bandwidths = sorted(row["mem_bandwidth_gbps"] or 0 for row in rows)
    assert bandwidths == sorted(row.bandwidth_gb_per_second or 0 for row in accelerators())
    assert sorted(row["tflops_dense"]["bf16"] or 0 for row in rows) == sorted(
        row.dense_bf16_tflops or 0 for row in accelerators()
    )
    for row in rows:
        if row["compute_capability"] and row["vendor"] == "nvidia":
            chip = catalogue.find_architecture(f"sm_{row['compute_capability'].replace('.', '')}")
            assert chip is not None
            for ours, theirs in (
                (chip.bf16, row["bf16"]),
                (chip.fp8, row["fp8"]),
                (chip.flash_attention_2, row["flash_attention_2"]),
            ):
                assert theirs is None or ours == theirs, row["id"]
