"""Rewards of sampled answers: functions from a file of the user's own, and reward models.

Runs in the ranks only: nothing of the user's code is run before, and what goes wrong in it is one line.
"""

import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput

HEAD = "score"
"""The layer that gives the reward, as transformers and peft call it."""


def split(name: str) -> tuple[str, str]:
    """Return file and function of ``rewards.py:brevity``; a part that is missing is empty."""
    file, _, function_name = name.rpartition(":")
    return file, function_name


def function(name: str) -> Callable[..., list[float | None]]:
    """Return a reward function, run as trl wants it and guarded.

    It is given what it names: ``prompts``, ``completions``, ``completion_ids`` and columns of the data, each
    a list; with ``**kwargs`` all of them.

    Args:
        name: File and function: ``/path/rewards.py:brevity``.

    Raises:
        BadInput: The file cannot be run, or has no such function.
    """
    file, function_name = split(name)
    module = _module(Path(file))
    own = getattr(module, function_name, None)
    if not callable(own):
        raise BadInput(f"{file}: has no function {function_name}", hint="check rollout.reward_functions")
    wanted = _wanted(own)

    @functools.wraps(own)
    def reward(prompts: Sequence[Any], **given: Any) -> list[float | None]:
        everything = {"prompts": prompts, **given}
        arguments = (
            everything if wanted is None else {key: everything[key] for key in wanted if key in everything}
        )
        try:
            found = own(**arguments)
        except Exception as error:
            raise BadInput(f"{name}: {_place(error, file)}{_said(error)}") from error
        return _numbers(found, len(prompts), name)

    reward.__name__ = function_name
    return reward


def model(where: str, *, dtype: str) -> tuple[Any, Any]:
    """Return a reward model and its tokenizer.

    Args:
        where: Folder or hub id of a model with one output, or of an adapter and a head for one.
        dtype: Torch's name of the format that its weights are loaded in.

    Raises:
        BadInput: There is none that gives rewards.
    """
    import torch
    from transformers import AutoTokenizer

    try:
        is_adapter = (Path(where) / "adapter_config.json").is_file()
        read = _adapted if is_adapter else _whole
        found = read(where, getattr(torch, dtype))
        reader = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise BadInput(f"rollout.reward_model: {where} cannot be loaded: {_said(error)}") from error
    found.config._name_or_path = "reward_model"  # noqa: SLF001 - trl calls its metrics by the last part of it
    found.requires_grad_(requires_grad=False)
    return found.eval(), reader


def _whole(where: str, dtype: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    found, report = AutoModelForSequenceClassification.from_pretrained(
        where, num_labels=1, dtype=dtype, output_loading_info=True
    )
    if report["missing_keys"]:
        raise _no_rewards(where)
    return found


def _adapted(where: str, dtype: Any) -> Any:
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification

    adapter = PeftConfig.from_pretrained(where)
    if HEAD not in (getattr(adapter, "modules_to_save", None) or ()):
        raise _no_rewards(where)
    base = AutoModelForSequenceClassification.from_pretrained(
        adapter.base_model_name_or_path, num_labels=1, dtype=dtype
    )
    return PeftModel.from_pretrained(base, where).merge_and_unload()


def _no_rewards(where: str) -> BadInput:
    return BadInput(
        f"rollout.reward_model: {where} gives no rewards: it has no head with one output",
        hint="train one with stage: rm",
    )


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"reward_functions_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path}: is no Python file", hint="check rollout.reward_functions")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"{path}: {_place(error, str(path))}{_said(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _wanted(own: Callable[..., Any]) -> list[str] | None:
    """The names that a function takes; ``None``: any."""
    parameters = inspect.signature(own).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return None
    return [one.name for one in parameters]


def _numbers(found: Any, num_wanted: int, name: str) -> list[float | None]:
    try:
        numbers = [None if one is None else float(one) for one in found]
    except (TypeError, ValueError):
        raise BadInput(f"{name}: must return a list of numbers; it returned {type(found).__name__}") from None
    if len(numbers) != num_wanted:
        raise BadInput(f"{name}: returned {len(numbers)} rewards for {num_wanted} answers")
    return numbers


def _place(error: Exception, file: str) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}: " if lines else ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]
