"""ZE_AFFINITY_MASK and ONEAPI_DEVICE_SELECTOR pick cards and tiles as Level Zero and SYCL do."""

import pytest

from ftwiz.engine.hardware.intel.visibility import Place, visible

TWO_BY_TWO = (2, 2)
THREE = (1, 1, 1)


@pytest.mark.parametrize(
    ("environ", "tiles", "places"),
    [
        ({}, TWO_BY_TWO, [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ({}, THREE, [(0, None), (1, None), (2, None)]),
        ({"ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}, TWO_BY_TWO, [(0, None), (1, None)]),
        ({"ZE_FLAT_DEVICE_HIERARCHY": "COMBINED"}, (2,), [(0, 0), (0, 1)]),
        ({"ZE_AFFINITY_MASK": "2,0"}, THREE, [(0, None), (2, None)]),
        ({"ZE_AFFINITY_MASK": "3"}, TWO_BY_TWO, [(1, 1)]),
        ({"ZE_AFFINITY_MASK": "7,x, 1"}, THREE, [(1, None)]),
        ({"ZE_AFFINITY_MASK": ""}, THREE, [(0, None), (1, None), (2, None)]),
        ({"ZE_AFFINITY_MASK": "0.1", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}, TWO_BY_TWO, [(0, 1)]),
        (
            {"ZE_AFFINITY_MASK": "0.0,0.1,1", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"},
            (2, 2),
            [(0, None), (1, None)],
        ),
        ({"ONEAPI_DEVICE_SELECTOR": "level_zero:1"}, THREE, [(1, None)]),
        ({"ONEAPI_DEVICE_SELECTOR": "level_zero:0,2"}, THREE, [(0, None), (2, None)]),
        ({"ONEAPI_DEVICE_SELECTOR": "*:gpu"}, THREE, [(0, None), (1, None), (2, None)]),
        ({"ONEAPI_DEVICE_SELECTOR": "opencl:*"}, THREE, []),
        ({"ONEAPI_DEVICE_SELECTOR": "!opencl:*"}, THREE, [(0, None), (1, None), (2, None)]),
        ({"ONEAPI_DEVICE_SELECTOR": "level_zero:*;!level_zero:0"}, THREE, [(1, None), (2, None)]),
        ({"ONEAPI_DEVICE_SELECTOR": "Level_Zero:1", "ZE_AFFINITY_MASK": "0,2"}, THREE, [(2, None)]),
        (
            {"ONEAPI_DEVICE_SELECTOR": "level_zero:*.*", "ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"},
            (2, 1),
            [(0, 0), (0, 1)],
        ),
        ({"ONEAPI_DEVICE_SELECTOR": "*:cpu"}, THREE, []),
    ],
)
def test_the_variables_pick_what_the_runtime_picks(
    environ: dict[str, str], tiles: tuple[int, ...], places: list[Place]
) -> None:
    chosen = visible(environ, tiles)
    assert list(chosen.places) == places
    assert chosen.problem is None


def test_a_selector_that_stops_sycl_is_a_problem() -> None:
    chosen = visible({"ONEAPI_DEVICE_SELECTOR": "gpu"}, THREE)
    assert chosen.places == ()
    assert "SYCL refuses" in (chosen.problem or "")
