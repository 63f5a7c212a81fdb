"""The variable that shows the ranks just the planned devices."""

import pytest

from ftwiz.engine.backends import visible_environment
from ftwiz.engine.specs.machine import Device

ALWAYS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
"""What ranks on NVIDIA's devices are told."""


def box(vendor: str, kind: str = "cuda") -> tuple[Device, ...]:
    return tuple(
        Device(kind=kind, vendor=vendor, index=i, physical_index=i + 2, uuid=f"GPU-{i}{i}", name="card")
        for i in range(4)
    )


def test_all_devices_need_no_choice_but_one_order() -> None:
    cards = box("nvidia")
    assert visible_environment(cards, cards) == ALWAYS
    assert visible_environment(box("amd"), box("amd")) == {}
    assert visible_environment((), ()) == {}


@pytest.mark.parametrize(
    ("vendor", "kind", "expected"),
    [
        ("nvidia", "cuda", {**ALWAYS, "CUDA_VISIBLE_DEVICES": "GPU-11,GPU-33"}),
        ("amd", "cuda", {"HIP_VISIBLE_DEVICES": "GPU-11,GPU-33"}),
        ("huawei", "npu", {"ASCEND_RT_VISIBLE_DEVICES": "3,5"}),
        ("intel", "xpu", {}),
    ],
)
def test_some_devices_are_named_as_their_runtime_takes_them(
    vendor: str, kind: str, expected: dict[str, str]
) -> None:
    cards = box(vendor, kind)
    assert visible_environment((cards[1], cards[3]), cards) == expected


def test_slices_that_share_a_name_are_not_chosen_by_it() -> None:
    slices = tuple(
        Device(kind="cuda", vendor="amd", index=i, uuid="GPU-1", partition="CPX", name="MI300X")
        for i in range(2)
    )
    assert visible_environment(slices[:1], slices) == {}


def test_a_card_without_a_name_is_not_guessed() -> None:
    nameless = Device(kind="cuda", vendor="nvidia", index=0, name="card")
    assert visible_environment((nameless,), (nameless, *box("nvidia"))) == ALWAYS
