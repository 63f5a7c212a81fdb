"""Every recording of AMD's tools reads as the corpus says."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftwiz.engine.hardware import amd
from ftwiz.engine.hardware.amd import amd_smi, kfd, rocm_smi, rocminfo
from ftwiz.engine.hardware.amd.card import Card, gpu_uuid
from ftwiz.engine.hardware.amd.facts import architecture

MIB = 1 << 20
GIB = 1 << 30
ROCM_SMI = (
    "rocm-smi_mi100_rocm571.json",
    "rocm-smi_rocm624_gpustack.json",
    "rocm-smi_rx6700xt_rocm430.json",
    "rocm-smi_rx6700xt_rocm571.json",
    "rocm-smi_rx6700xt_rocm602.json",
    "rocm-smi_rx6700xt_rocm612.json",
    "rocm-smi_vega10xt.json",
)


def said(corpus: Path, name: str) -> str:
    return (corpus / "hardware" / "amd" / name).read_text(encoding="utf8")


def expected(corpus: Path, name: str) -> dict[str, Any]:
    rows = json.loads((corpus / "hardware" / "EXPECTED.json").read_text(encoding="utf8"))
    row = rows[f"amd/{name}"]
    assert isinstance(row, dict)
    return row


def as_expected(card: Card) -> dict[str, Any]:
    """Our reading in the words of EXPECTED.json."""
    return {
        "card": f"card{card.number}",
        "name": card.name,
        "gfx": card.architecture,
        "uuid": card.uuid,
        "total": None if card.total_bytes is None else card.total_bytes // MIB,
        "used": None if card.used_bytes is None else card.used_bytes // MIB,
        "util": card.utilization_percent,
    }


@pytest.mark.parametrize("name", ROCM_SMI)
def test_rocm_smi_reads_as_expected_in_every_version(corpus: Path, name: str) -> None:
    cards = rocm_smi.parse_cards(said(corpus, name))
    # the row has what the tool wrote: gfx11001 for gfx1101, a UUID without the runtime's prefix
    rows = [
        row | {"gfx": architecture(row["gfx"]), "uuid": gpu_uuid(row["uuid"])}
        for row in expected(corpus, name)["cards"]
    ]
    assert [as_expected(card) for card in cards] == rows


def test_amd_smi_of_rocm_10_reads_as_expected(corpus: Path) -> None:
    name = "amd-smi-static_mi300x_rocm10.1_short.json"
    [card], [row] = amd_smi.parse_cards(said(corpus, name)), expected(corpus, name)["gpus"]
    assert (card.number, card.name, card.architecture, card.bus_id) == (
        row["gpu"],
        row["name"],
        row["gfx"],
        row["bdf"],
    )
    assert card.total_bytes == row["total"] * MIB


def test_the_text_forms_of_amd_smi_are_read(corpus: Path) -> None:
    listed = amd_smi.parse_cards(said(corpus, "amd-smi-list_mi300x_blog.txt"))
    assert [card.bus_id for card in listed] == ["0000:05:00.0", "0000:26:00.0", "0000:46:00.0"]
    [static] = amd_smi.parse_cards(said(corpus, "amd-smi-static_mi300x_blog.txt"))
    assert (static.name, static.pcie_generation, static.pcie_width) == ("MI300X-O", 5, 16)
    assert static.uuid == "GPU-af54e92b0a5d57c8"
    [metric] = amd_smi.parse_cards(said(corpus, "amd-smi-metric_mi300x_blog.txt"))
    assert (metric.utilization_percent, metric.power_watts, metric.clock_mhz) == (100.0, 234.0, 2102.0)


def test_the_monitor_table_of_amd_smi_is_read(corpus: Path) -> None:
    cards = amd_smi.parse_monitor(said(corpus, "amd-smi-monitor_mi300x_blog.txt"))
    assert [card.number for card in cards] == list(range(8))
    first = cards[0]
    assert (first.power_watts, first.temperature_celsius) == (182.0, 42.0)
    assert (first.utilization_percent, first.clock_mhz) == (83.0, 1613.0)


def test_the_processes_of_amd_smi_are_read(corpus: Path) -> None:
    found = amd_smi.parse_processes(said(corpus, "amd-smi-process_mi300x_blog.txt"))
    assert {gpu: [process.pid for process in listed] for gpu, listed in found.items()} == {
        0: [207590],
        1: [207591],
    }
    assert found[0][0].name == "pt_main_thread"
    assert found[0][0].used_bytes == int(7.3 * GIB)


def test_a_topology_without_link_types_claims_none(corpus: Path) -> None:
    assert amd_smi.parse_topology(said(corpus, "amd-smi-topology_mi300x_blog.txt")) == {}


def test_the_lists_of_rocm_smi_are_read(corpus: Path) -> None:
    named = rocm_smi.parse_cards(said(corpus, "rocm-smi-showproductname_mixed-mi50-igpu.txt"))
    assert [(card.name, card.architecture) for card in named] == [
        ("AMD Radeon Graphics", "gfx906"),
        ("AMD Instinct MI60 / MI50", "gfx906"),
        ("AMD Radeon Graphics", "gfx90c"),
    ]
    numa = rocm_smi.parse_cards(said(corpus, "rocm-smi-showtoponuma.txt"))
    assert [card.numa_node for card in numa] == [3, 2, 1, 0, 7, 6, 5, 4]


def test_the_plain_table_of_rocm_smi_is_read(corpus: Path) -> None:
    cards = rocm_smi.parse_cards(said(corpus, "rocm-smi_table_affinity2.txt"))
    assert len(cards) == 8
    assert {card.name for card in cards} == {"Instinct MI210"}
    assert (cards[1].temperature_celsius, cards[1].power_watts) == (39.0, 42.0)
    assert (cards[1].power_limit_watts, cards[1].utilization_percent) == (300.0, 0.0)


def test_rocminfo_is_read(corpus: Path) -> None:
    [card] = rocminfo.parse_cards(said(corpus, "rocminfo_rocm624.txt"))
    assert (card.name, card.architecture) == ("AMD Radeon RX 7800 XT", "gfx1101")
    assert (card.uuid, card.total_bytes) == ("GPU-5c88007d760374f3", 16368 * MIB)


def test_a_slice_in_cpx_mode_has_an_eighth_of_the_card(corpus: Path) -> None:
    bank = kfd.parse_properties(said(corpus, "kfd-mem_banks_mi300x_cpx.txt"))
    assert (bank["heap_type"], bank["size_in_bytes"]) == (1, 196592 * MIB // 8)


def _mixed(corpus: Path) -> Mapping[str, str]:
    """The two lists of one box, as the one query of ours would print them."""
    names = ("showproductname", "showmeminfo-vram")
    return {"rocm-smi": "\n".join(said(corpus, f"rocm-smi-{name}_mixed-mi50-igpu.txt") for name in names)}


def test_a_processor_s_graphics_are_left_out_by_size_and_a_card_of_the_same_name_is_kept(
    corpus: Path, box: Any
) -> None:
    found = amd.inventory(box(tools=_mixed(corpus)))
    assert [(device.name, (device.total_bytes or 0) // GIB) for device in found.devices] == [
        ("AMD Radeon Graphics", 31),
        ("AMD Instinct MI60 / MI50", 15),
    ]
    assert [device.supports_bf16 for device in found.devices] == [False, False]
    [problem] = found.problems
    assert "cuda:2" in problem.message
    assert problem.advice == "set HIP_VISIBLE_DEVICES=0,1"


def test_replayed_cards_are_devices_with_free_memory(corpus: Path, box: Any) -> None:
    replay = {
        "rocm-smi": said(corpus, "rocm-smi_rocm624_gpustack.json"),
        "rocminfo": said(corpus, "rocminfo_rocm624.txt"),
    }
    system = box(tools=replay)
    assert amd.is_present(system)
    [device] = amd.inventory(system).devices
    assert (device.kind, device.vendor, device.index, device.source) == ("cuda", "amd", 0, "rocm-smi")
    assert (device.name, device.architecture) == ("AMD Radeon RX 7800 XT", "gfx1101")
    assert device.free_bytes == 17163091968 - 11615076352
    [reading] = amd.usage(system, (device,))
    assert (reading.utilization_percent, reading.power_watts) == (100.0, 53.0)
    assert reading.memory_used_bytes == 11615076352


def test_a_card_that_the_tool_cannot_name_is_called_by_its_vendor(corpus: Path, box: Any) -> None:
    [device] = amd.inventory(box(tools={"rocm-smi": said(corpus, "rocm-smi_rx6700xt_rocm430.json")})).devices
    assert device.name == "AMD GPU"
