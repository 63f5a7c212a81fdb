"""``python -m ftwiz.engine.trace``: one request as JSON on stdin, one answer as JSON on stdout.

Request: ``{"workload": ..., "config": contents of config.json, "num_layers": optional, "whole": optional}``.
Refusals leave with 2 or 3 and ``{"error": ..., "hint": ...}``.
"""

import gc
import json
import os
import sys
import warnings
from typing import Any, NoReturn

from ..errors import BadInput, FtwizError, Refused
from ..exact.wire import workload_from_json


def main() -> NoReturn:
    """Answer one request."""
    gc.disable()  # one answer, and much is imported for it
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    warnings.simplefilter("ignore")
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries may print; the answer is alone on stdout
    try:
        result, code = _answer(json.load(sys.stdin)), 0
    except FtwizError as error:
        result, code = {"error": error.message, "hint": error.hint}, int(error.exit_code)
    except json.JSONDecodeError as error:
        result, code = {"error": f"the request is no JSON: {error}", "hint": None}, int(BadInput.exit_code)
    json.dump(result, out)
    out.write("\n")
    out.flush()
    os._exit(code)  # nothing is left to save, and tearing torch down takes time


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise Refused(f"the exact estimate needs {error.name}", hint="pip install 'ftwiz[train]'") from error
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    from .run import answer

    config = request["config"]
    if "num_layers" in request:
        config = {**config, "num_hidden_layers": request["num_layers"]}
    result = answer(workload_from_json(request["workload"]), config, whole=bool(request.get("whole")))
    result["peak_rss_bytes"] = _peak_rss_bytes()
    return result


def _peak_rss_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
