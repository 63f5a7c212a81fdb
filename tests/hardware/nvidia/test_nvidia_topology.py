"""The matrices of `nvidia-smi topo`."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from ftwiz.engine.hardware.nvidia.topology import parse_matrix, parse_peers

FUZZ = settings(max_examples=int(os.environ.get("FTWIZ_FUZZ", "200")), deadline=None)
MATRIX = (
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tSYS\tPIX\t0-51\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tNODE\tSYS\t0-51\t0\t\tN/A\n"
    "GPU2\tSYS\tNODE\t X \tPHB\t52-103\t1\t\tN/A\n"
    "NIC0\tPIX\tSYS\tPHB\t X \t\t\t\t\n"
    "\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n"
    "\nNIC Legend:\n\n  NIC0: mlx5_0\n"
)
PEERS = (
    " \tGPU0\tGPU1\tGPU2\t\n GPU0\tX\tOK\tCNS\t\n GPU1\tOK\tX\tU\t\n GPU2\tCNS\tU\tX\t\n"
    "\nLegend:\n  OK   = Ok\n"
)


def test_underlined_headers_network_cards_and_the_legend_are_understood() -> None:
    told = parse_matrix(MATRIX)
    assert told.cards == (0, 1, 2)
    assert told.links == {(0, 1): ("nvlink", 18), (0, 2): ("sys", None), (1, 2): ("node", None)}
    assert told.numa_nodes == {0: 0, 1: 0, 2: 1}


def test_the_old_word_for_between_sockets_is_known() -> None:
    assert parse_matrix("GPU0 GPU1\nGPU0 X SOC\nGPU1 SOC X\n").links == {(0, 1): ("sys", None)}


def test_peer_access_is_read_and_unknown_pairs_are_left_out() -> None:
    assert parse_peers(PEERS) == {(0, 1): True, (0, 2): False}


def test_what_only_one_of_two_may_do_is_no_access() -> None:
    assert parse_peers("GPU0 GPU1\nGPU0 X OK\nGPU1 GNS X\n") == {(0, 1): False}


def test_an_error_message_is_no_matrix() -> None:
    told = parse_matrix("ERROR: Option -m is missing its value. Please run 'nvidia-smi -h' for help.\n")
    assert told.cards == ()
    assert told.links == {}


@FUZZ
@given(
    st.text(),
    st.lists(st.tuples(st.integers(0, len(MATRIX)), st.integers(0, 40), st.text(max_size=5)), max_size=4),
)
def test_any_text_is_read(text: str, changes: list[tuple[int, int, str]]) -> None:
    for start, length, piece in changes:
        text = MATRIX[:start] + piece + MATRIX[start + length :] + text
    told = parse_matrix(text)
    assert all(first < second for first, second in told.links)
    assert all(first < second for first, second in parse_peers(text))
