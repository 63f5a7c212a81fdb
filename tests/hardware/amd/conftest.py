"""A synthetic KFD topology, written from the kernel's documentation: sizes and names are ours."""

from collections.abc import Callable

import pytest

from ftwiz.engine.hardware.amd.kfd import NODES

MakeNodes = Callable[..., dict[str, str]]


def _node(number: int, values: dict[str, int], memory: int, gpu_id: int) -> dict[str, str]:
    folder = f"{NODES}/{number}"
    text = "".join(f"{name} {value}\n" for name, value in values.items())
    return {
        f"{folder}/properties": text,
        f"{folder}/gpu_id": f"{gpu_id}\n",
        f"{folder}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {memory}\nflags 0\nwidth 8192\n",
    }


@pytest.fixture
def kfd_nodes() -> MakeNodes:
    """``kfd_nodes([(90402, 0x0500, bytes), ...])``: files of GPUs by target, location and memory."""

    def make(
        gpus: list[tuple[int, int, int]],
        *,
        xgmi: bool = False,
        device_id: int = 0x74A1,
        function: bool = True,
    ) -> dict[str, str]:
        files = {f"{NODES}/0/properties": "cpu_cores_count 64\nsimd_count 0\nvendor_id 0\n", "/dev/kfd": ""}
        for number, (target, location, memory) in enumerate(gpus, start=1):
            values = {
                "cpu_cores_count": 0,
                "simd_count": 1216,
                "gfx_target_version": target,
                "vendor_id": 0x1002,
            }
            values |= {"device_id": device_id, "location_id": location, "domain": 0}
            values |= {"unique_id": 0xA000 + number}
            files |= _node(number, values, memory, 5000 + number)
            for place, other in enumerate(range(1, len(gpus) + 1) if xgmi else ()):
                if other != number:
                    link = f"{NODES}/{number}/io_links/{place}/properties"
                    files[link] = f"type 11\nnode_from {number}\nnode_to {other}\nweight 15\n"
        return files

    return make
