"""Reads what a run was planned to be: train.yaml and plan.json, nothing else."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import yaml

from ..errors import BadInput
from ..rundir import RunFolder
from ..specs.plan import Strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """train.yaml by section, and the planned strategy."""

    stage: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    method: Mapping[str, Any]
    trainer: Mapping[str, Any]
    run: Mapping[str, Any]
    strategy: Strategy
    rollout: Mapping[str, Any] = field(default_factory=dict)
    """Of stages that sample answers: where rewards come from."""
    is_trial: bool = False
    """It is run to be measured: the last step is not saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """Which of the run's processes this is, as the launcher says it."""

    rank: int
    local_rank: int
    world_size: int

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for the run."""
        return self.rank == 0


def rank_of(environ: Mapping[str, str]) -> Rank:
    """Return the rank that torch's launchers put into the environment; without them the only one."""
    return Rank(
        rank=int(environ.get("RANK", "0")),
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        world_size=int(environ.get("WORLD_SIZE", "1")),
    )


def read_settings(run: RunFolder) -> Settings:
    """Read train.yaml and plan.json of a run folder.

    Raises:
        BadInput: One of them is missing or is not what ftwiz writes.
    """
    train = _read(run.train_file, yaml.safe_load)
    plan = _read(run.plan_file, json.loads)
    try:
        known = {one.name for one in fields(Strategy)}
        strategy = Strategy(**{name: value for name, value in plan["strategy"].items() if name in known})
        is_trial = plan.get("trial") is True
        return Settings(
            strategy=strategy,
            is_trial=is_trial,
            rollout=train.get("rollout", {}),
            **{name: train[name] for name in _sections()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{run.path}: train.yaml or plan.json is not whole: {error}") from error


def _sections() -> list[str]:
    return [one.name for one in fields(Settings) if one.name not in {"strategy", "is_trial", "rollout"}]


def _read(path: os.PathLike[str], parse: Any) -> Any:
    try:
        with open(path, encoding="utf8") as file:  # noqa: PTH123 - PathLike
            return parse(file.read())
    except FileNotFoundError:
        raise BadInput(f"{path}: not there", hint="this is not a run folder made by ftwiz run") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
