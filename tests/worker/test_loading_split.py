"""Loading for engines that split the weights: no rank has to hold what it will not keep."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.train, pytest.mark.timeout(120)]

LOAD = """
import json, os, sys
import yaml
from pathlib import Path
from ftwiz.engine.rundir import RunFolder
from ftwiz.engine.stages import check_arguments
from ftwiz.engine.worker.engines import enter, reads_weights
from ftwiz.engine.worker.loading import load_model
from ftwiz.engine.worker.settings import rank_of, read_settings

settings = read_settings(RunFolder(Path.cwd()))
enter(settings.strategy)
config = check_arguments(settings.stage, settings.trainer)
reads = reads_weights(settings.strategy, rank_of(os.environ))
where = settings.model["name_or_path"]
parameters = list(load_model(settings.model, where, reads_weights=reads).parameters())
local = [getattr(parameter, "ds_tensor", parameter) for parameter in parameters]
found = {
    "elements": sum(part.numel() for part in local),
    "squares": sum(float(part.detach().pow(2).sum()) for part in local),
    "parameters": len(parameters),
    "addresses": len({part.data_ptr() for part in local}),
    "devices": sorted({part.device.type for part in local}),
    "dtypes": sorted({str(part.dtype) for part in local}),
}
Path("loaded-" + os.environ["RANK"] + ".json").write_text(json.dumps(found))
os._exit(0)
"""


def loaded(lab: Any, backend: str, **strategy: Any) -> list[dict[str, Any]]:
    run = lab.make(backend, strategy=strategy)
    script = run.path / "load.py"
    script.write_text(LOAD)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = lab.python(*launcher, str(script), cwd=run.path)
    assert done.returncode == 0, done.stderr
    return [json.loads((run.path / f"loaded-{rank}.json").read_text()) for rank in (0, 1)]


def test_zero_3_splits_the_model_while_it_is_loaded(lab: Any) -> None:
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    first, second = loaded(lab, "zero", zero_stage=3)
    assert first["elements"] == second["elements"] == 35296 / 2
    assert first["squares"] > 0
    assert second["squares"] > 0


def test_under_fsdp_only_the_first_rank_reads_weights(lab: Any) -> None:
    first, second = loaded(lab, "fsdp")
    assert first["elements"] == second["elements"] == 35296
    assert first["dtypes"] == second["dtypes"] == ["torch.float32"]
    assert first["devices"] == second["devices"] == ["cpu"]
    assert first["addresses"] == second["addresses"] == first["parameters"]
    assert first["squares"] > 0
    assert first["squares"] != second["squares"]
