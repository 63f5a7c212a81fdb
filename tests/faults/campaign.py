"""The campaign of faults: ``make faults REPEATS=5`` tries every case on every engine and writes the table.

A trial that cannot be made here is counted as not tried, with its reason, and never as passed.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cases import CASES  # noqa: E402 - after the path is set
from lab import ENGINES, Lab, Lost  # noqa: E402
from saves import SAVES, SaveLab  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: make faults -->", "<!-- end of table -->"


@dataclass(kw_only=True)
class Trial:
    """What came of one try."""

    case: str
    engine: str
    ok: bool
    note: str = ""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def was_tried(self) -> bool:
        """Whether it could be made here."""
        return self.ok or not self.note.startswith("not tried")


def main() -> int:
    """Run the campaign; 1 when something was lost."""
    asked = _arguments()
    results = Path(asked.results)
    results.parent.mkdir(parents=True, exist_ok=True)
    trials = _read(results) if asked.keep else []
    with tempfile.TemporaryDirectory(prefix="ftwiz-faults-") as name:
        folder = Path(name)
        _make_models(folder, big=re.search(asked.case or "out of memory", "out of memory, on_oom: replan"))
        for trial in _trials(asked, folder):
            trials.append(trial)
            results.write_text(json.dumps([asdict(one) for one in trials], indent=1), encoding="utf8")
    if asked.page:
        write_page(trials, asked.repeats)
    return 0 if all(trial.ok or not trial.was_tried for trial in trials) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", action="append", choices=list(ENGINES))
    parser.add_argument("--case", help="regular expression of names")
    parser.add_argument("--points", type=int, default=50, help="kill points during saves, in all")
    parser.add_argument("--results", default="build/faults.json", help="every trial, as JSON")
    parser.add_argument("--keep", action="store_true", help="add to the results that are there")
    parser.add_argument("--page", action="store_true", help=f"write the table of {PAGE.name}")
    return parser.parse_args()


def _read(path: Path) -> list[Trial]:
    return [Trial(**body) for body in json.loads(path.read_text())] if path.exists() else []


def _make_models(folder: Path, *, big: object) -> None:
    text = (ROOT / "tests" / "conftest.py").read_text(encoding="utf8")
    found = re.search(r'TINY_MODEL = """(.*?)"""', text, re.DOTALL)
    assert found is not None
    wide = ("hidden_size=32, intermediate_size=64", "hidden_size=128, intermediate_size=2048")
    assert wide[0] in found[1]
    codes = {"model": found[1]} | ({"big-model": found[1].replace(*wide)} if big else {})
    for name, code in codes.items():
        environ = os.environ | {"HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", code, str(folder / name)]
        subprocess.run(command, check=True, env=environ, capture_output=True)


def _trials(asked: argparse.Namespace, folder: Path) -> Iterable[Trial]:
    wanted = re.compile(asked.case or ".")
    for repeat in range(asked.repeats):
        for engine in asked.engine or ENGINES:
            for case in CASES:
                if wanted.search(case):
                    yield _try(case, engine, folder, repeat)
    for name, tried in SAVES.items():
        if wanted.search(name) and "single" in (asked.engine or ENGINES):
            yield from _try_saves(name, tried, folder, asked)


def _try(case: str, engine: str, folder: Path, repeat: int) -> Trial:
    place = folder / f"{engine}-{repeat}-{time.monotonic_ns()}"
    place.mkdir()
    lab, trial = Lab(place, folder / "model", engine), Trial(case=case, engine=engine, ok=False)
    began = time.monotonic()
    try:
        trial.figures, trial.ok = dict(CASES[case](lab)), True
    except Lost as lost:
        trial.note = str(lost)
    except Exception as error:  # noqa: BLE001 - a broken trial is no reason to end the campaign
        trial.note = f"the trial broke: {type(error).__name__}: {error}"
    finally:
        lab.close()
    trial.seconds = round(time.monotonic() - began, 1)
    _say(trial)
    return trial


def _try_saves(name: str, tried: object, folder: Path, asked: argparse.Namespace) -> Iterable[Trial]:
    place = folder / f"saves-{time.monotonic_ns()}"
    place.mkdir()
    with SaveLab(place, folder / "model", random.Random(len(name))) as lab:  # noqa: S311 - no secret
        for point in tried(lab, asked.points):  # type: ignore[operator]
            trial = Trial(case=name, engine="single", **point)
            _say(trial)
            yield trial


def _say(trial: Trial) -> None:
    word = "ok" if trial.ok else "LOST" if trial.was_tried else "not tried"
    print(  # noqa: T201 - a campaign is watched
        f"{word:<9} {trial.engine:<7} {trial.case}: {trial.seconds} s {trial.figures} {trial.note}",
        flush=True,
    )


def write_page(trials: list[Trial], repeats: int) -> None:
    """Put the table into docs/reliability.md, between its two marks."""
    text = PAGE.read_text(encoding="utf8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest, f"{PAGE} has no {BEGIN}"
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(trials, repeats)}\n{END}{after}", encoding="utf8")


def table(trials: list[Trial], repeats: int) -> str:
    """Return the trials as a Markdown table: a row for each case, a column for each engine."""
    day = time.strftime("%Y-%m-%d")
    measured = (
        f"Measured {day}, {repeats} {'repeat' if repeats == 1 else 'repeats'}, {os.cpu_count()} cores, gloo, "
        "a tiny Llama. A cell is *passed of tried*; the last column has the worst figures of all trials."
    )
    lines = [
        measured,
        "",
        "| fault | rows | " + " | ".join(ENGINES) + " | worst figures |",
        "|---|---|" + "---|" * (len(ENGINES) + 1),
    ]
    for name, tried in (CASES | SAVES).items():
        row, _, what = (tried.__doc__ or "").partition("\n")[0].partition(": ")
        mine = [trial for trial in trials if trial.case == name]
        if mine:
            cells = [_cell([trial for trial in mine if trial.engine == engine]) for engine in ENGINES]
            lines.append(f"| {what.rstrip(chr(46))} | {row} | {' | '.join(cells)} | {_worst(mine)} |")
    lost = [trial for trial in trials if not trial.ok]
    if lost:
        lines += ["", "Not passed:", ""]
        lines += [f"- {one.case}, {one.engine}: {' '.join(one.note.split())[:200]}" for one in lost]
    return "\n".join(lines) + "\n"


def _cell(trials: list[Trial]) -> str:
    tried = [trial for trial in trials if trial.was_tried]
    if not trials:
        return "-"
    return f"{sum(trial.ok for trial in tried)} of {len(tried)}" if tried else "not tried"


def _worst(trials: list[Trial]) -> str:
    worst: dict[str, float] = {}
    for trial in trials:
        for name, value in trial.figures.items():
            worst[name] = max(value, worst.get(name, value))
    return "; ".join(f"{name} {value:g}" for name, value in worst.items()) or "-"


if __name__ == "__main__":
    sys.exit(main())
