"""Compare the fast estimate with the exact one; writes docs/fast-against-exact.md (``make grid``).

Exact answers are remembered on the disk, so an interrupted run goes on where it was. The libraries are
imported once, and each case runs in a copy of that process (``fork``), one at a time, under a time limit.
"""

import argparse
import json
import os
import select
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from grid_cases import Case, cases, first_of
from grid_page import Compared, page

from ftwiz.engine.errors import FtwizError
from ftwiz.engine.exact import cache, exact_estimate
from ftwiz.engine.memory.ledger import completed
from ftwiz.engine.specs.estimate import PHASES

TARGET = Path(__file__).parent.parent / "docs" / "fast-against-exact.md"
CHUNK = 1 << 16


def main() -> None:
    """Compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of a case")
    parser.add_argument("--only", default="", help="cases whose model or words hold this text; no page")
    parser.add_argument("--no-page", action="store_true")
    given = parser.parse_args()
    drawn = first_of(list(cases(given.count, given.seed)), given.only)
    found = []
    for number, case in enumerate(drawn, 1):
        compared = compare(case, given.seconds)
        found.append(compared)
        print(f"{number:4}/{len(drawn)} {_line(compared)}", flush=True)
    if not given.only and not given.no_page:
        TARGET.write_text(page(found, seed=given.seed), encoding="utf8")


def compare(case: Case, seconds: float) -> Compared:
    """Ask the exact tier, or what is remembered of it."""
    key = cache.key_of(case.workload, case.config)
    answer = cache.load(key)
    if answer is None:
        answer = _traced(case, seconds)
        cache.save(key, answer)
    if "error" in answer:
        return Compared(case, None, str(answer["error"]))
    exact = completed(exact_estimate(case.workload, case.config), case.workload)
    return Compared(case, exact, None)


def _traced(case: Case, seconds: float) -> dict[str, Any]:
    """Trace in a copy of this process, which has the libraries in memory."""
    _imported()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer_into(writer, case)
    os.close(writer)
    try:
        text = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return dict(json.loads(text)) if text else {"error": f"no answer within {seconds:.0f} s"}


def _imported() -> None:
    if "trl" in sys.modules:
        return
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    os.environ.update(TORCHDYNAMO_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    warnings.simplefilter("ignore")
    import peft  # noqa: F401, PLC0415 - only when something is to be traced
    import torch  # noqa: PLC0415
    import trl.kernels.chunked_logprob  # noqa: PLC0415
    import trl.trainer.utils  # noqa: F401, PLC0415

    import ftwiz.engine.trace.run  # noqa: F401, PLC0415

    torch.set_num_threads(1)


def _answer_into(writer: int, case: Case) -> None:
    from ftwiz.engine.trace.run import answer  # noqa: PLC0415 - in the copy

    try:
        result = answer(case.workload, case.config)
    except FtwizError as error:
        result = {"error": error.message}
    except Exception as error:  # noqa: BLE001 - the page names it
        result = {"error": f"{type(error).__name__}: {error}"[:300]}
    try:
        with os.fdopen(writer, "w") as out:
            json.dump(result, out)
    finally:
        os._exit(0)


def _read(reader: int, deadline: float) -> bytes:
    text = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return b""
        part = os.read(reader, CHUNK)
        if not part:
            return text
        text += part


def _line(compared: Compared) -> str:
    case = compared.case
    if compared.exact is None:
        return f"   n/a  {case.model} {case.words}: {compared.refusal}"
    mark = "!" if compared.is_beyond else " "
    phases = " ".join(
        f"{phase.replace('backward', 'b')} {case.fast.phase_bytes(phase) / held - 1:+.1%}"
        for phase in PHASES
        if (held := compared.exact.phase_bytes(phase)) and case.fast.phase_bytes(phase)
    )
    peaks = f"{compared.exact.allocated_bytes / 1e9:.2f} GB in {compared.exact.peak_phase}"
    return f"{mark}{compared.off:+7.2%} {case.model} {case.words} | {peaks} | {phases}"


if __name__ == "__main__":
    main()
