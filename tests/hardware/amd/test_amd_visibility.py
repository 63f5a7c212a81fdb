"""HIP, ROCR and CUDA variables pick devices as ROCm's runtime and torch do."""

import pytest

from ftwiz.engine.hardware.amd.visibility import visible

UUIDS = ["GPU-00000000000000aa", "GPU-00000000000000ab", "GPU-5c88007d760374f3", None]


@pytest.mark.parametrize(
    ("environ", "positions"),
    [
        ({}, (0, 1, 2, 3)),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, (2, 0)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (1,)),
        ({"HIP_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "1"}, (3,)),
        ({"HIP_VISIBLE_DEVICES": "0,9,1"}, (0,)),
        ({"HIP_VISIBLE_DEVICES": "0,-1,1"}, (0,)),
        ({"HIP_VISIBLE_DEVICES": "0, 1"}, (0,)),
        ({"HIP_VISIBLE_DEVICES": "1gpu2"}, ()),
        ({"HIP_VISIBLE_DEVICES": "1,1"}, ()),
        ({"HIP_VISIBLE_DEVICES": ""}, ()),
        ({"HIP_VISIBLE_DEVICES": "GPU-5c88007d760374f3,0"}, (2, 0)),
        ({"HIP_VISIBLE_DEVICES": "GPU-5c88"}, (2,)),
        ({"HIP_VISIBLE_DEVICES": "GPU-00"}, ()),
        ({"HIP_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"ROCR_VISIBLE_DEVICES": ""}, ()),
        ({"ROCR_VISIBLE_DEVICES": "2,1"}, (2, 1)),
        ({"ROCR_VISIBLE_DEVICES": "0x1, 02"}, (1, 2)),
        ({"ROCR_VISIBLE_DEVICES": "1,1,2"}, (1,)),
        ({"ROCR_VISIBLE_DEVICES": "gpu-5C88007D,x,0"}, (2,)),
        ({"ROCR_VISIBLE_DEVICES": "GPU-000"}, ()),
        ({"ROCR_VISIBLE_DEVICES": "3,2,1", "HIP_VISIBLE_DEVICES": "1,0"}, (2, 3)),
        ({"ROCR_VISIBLE_DEVICES": "3,2", "CUDA_VISIBLE_DEVICES": "1"}, (2,)),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "2"}, ()),
    ],
)
def test_the_variables_pick_what_the_runtime_picks(
    environ: dict[str, str], positions: tuple[int, ...]
) -> None:
    chosen = visible(environ, UUIDS)
    assert chosen.positions == positions
    assert chosen.problem is None


def test_more_devices_of_hip_than_of_rocr_are_a_problem_because_torch_raises() -> None:
    chosen = visible({"ROCR_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0,1"}, UUIDS)
    assert chosen.positions == ()
    assert "torch refuses" in (chosen.problem or "")
