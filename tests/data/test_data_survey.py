"""Every row is looked at, bad ones are told and passed over, and memory does not grow with the file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftwiz.cli.show_data import Lengths
from ftwiz.engine.data.sources import Source
from ftwiz.engine.data.survey import MOST_BAD, MOST_DRAWN, Survey, stage_for, survey
from ftwiz.engine.errors import BadInput
from ftwiz.engine.specs.job import Data

GOOD = {"question": "2 + 2?", "answer": "4"}


def source(path: Path, *lines: object) -> Source:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
    return Source(path=path, data=Data(path=str(path)))


def seen(path: Path, *lines: object, stage: str = "sft") -> Survey:
    return survey(source(path, *lines), stage=stage)


def test_bad_rows_are_told_with_their_lines_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    found = seen(path, GOOD, '{"question', {"question": "x"}, "", {**GOOD, "answer": 4}, GOOD, [1])
    assert (found.num_rows, found.num_used, found.num_bad) == (6, 2, 4)
    assert found.bad == (
        f"{path}:2: not JSON: Unterminated string starting at (column 2)",
        f"{path}:3: no column 'answer' (found: question)",
        f"{path}:5: answer is a number, not text",
        f"{path}:7: row is a list, not an object with columns",
    )
    assert found.bad_share == pytest.approx(4 / 6)


def test_only_the_first_bad_rows_are_remembered(tmp_path: Path) -> None:
    found = seen(tmp_path / "rows.jsonl", GOOD, *["{"] * 50)
    assert (found.num_bad, len(found.bad)) == (50, MOST_BAD)


def test_a_list_ends_at_its_first_broken_row(tmp_path: Path) -> None:
    found = seen(tmp_path / "rows.json", "[", json.dumps(GOOD), ",{", "]")
    assert (found.num_used, found.num_bad) == (1, 1)


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    same, empty = {**pair, "rejected": "b"}, {**pair, "prompt": " "}
    found = seen(tmp_path / "rows.jsonl", pair, same, empty, empty, stage="dpo")
    assert found.left_out == {"chosen and rejected are the same": 1, "question or answer is empty": 2}
    assert (found.num_rows, found.num_used) == (4, 1)


def test_a_file_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    for lines in (["{"], [{"foo": 1}]):
        with pytest.raises(BadInput, match=r"rows\.jsonl:1: "):
            seen(tmp_path / "rows.jsonl", *lines)


def test_rows_are_drawn_from_the_whole_file(tmp_path: Path) -> None:
    rows = [{"text": str(n)} for n in range(5000)]
    found = seen(tmp_path / "rows.jsonl", *rows)
    again = seen(tmp_path / "rows.jsonl", *rows)
    assert found.drawn == again.drawn
    assert len(found.drawn) == MOST_DRAWN
    numbers = [int(str(row["text"])) for row in found.drawn]
    assert 2300 < sum(numbers) / MOST_DRAWN < 2700
    assert found.characters == {1: 10, 2: 90, 3: 900, 4: 4000}


@pytest.mark.parametrize(
    ("row", "stage"),
    [
        (GOOD, "sft"),
        ({"text": "x"}, "sft"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "dpo"),
        ({"prompt": "a", "completion": "b", "label": True}, "kto"),
        ({"prompt": "a"}, "grpo"),
    ],
)
def test_a_file_is_looked_at_for_the_stage_that_its_rows_are_for(
    tmp_path: Path, row: object, stage: str
) -> None:
    assert stage_for(source(tmp_path / "rows.jsonl", row)) == stage


def test_rows_for_no_stage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="columns fit no known format"):
        stage_for(source(tmp_path / "rows.jsonl", {"foo": 1}))


@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=60), limit=st.integers(1, 300))
def test_figures_are_those_of_the_sorted_lengths(lengths: list[int], limit: int) -> None:
    counts = {length: lengths.count(length) for length in lengths}
    found = Lengths.of(counts, unit="tokens", limit=limit)
    assert found is not None
    ordered = sorted(lengths)
    assert (found.least, found.most, found.num_rows) == (ordered[0], ordered[-1], len(lengths))
    assert found.median == ordered[(len(lengths) - 1) // 2]
    assert found.num_over == sum(length > limit for length in lengths)
    assert sum(length <= found.ninety for length in lengths) >= 0.9 * len(lengths)


PEAK = """
import resource, sys
from pathlib import Path
from ftwiz.engine.data.sources import Source
from ftwiz.engine.data.survey import survey
from ftwiz.engine.specs.job import Data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = survey(Source(path=Path(sys.argv[1]), data=Data(path=sys.argv[1])), stage="sft")
print(found.num_used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    text, number = "word " * 800, 8000
    path = tmp_path / name
    row = json.dumps({"text": text})
    whole = {
        "rows.jsonl": f"{row}\n" * number,
        "rows.json": "[" + ",\n".join([row] * number) + "]",
        "rows.csv": "text,id\n" + f"{text},1\n" * number,
        "rows.txt": f"{text}\n" * number,
    }[name]
    path.write_text(whole, encoding="utf8")
    assert path.stat().st_size > 30 * 2**20
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    num_used, grown_kib = map(int, done.stdout.split())
    assert num_used == number
    assert grown_kib < 20 * 2**10, "a thousand rows are kept, and not the file"
