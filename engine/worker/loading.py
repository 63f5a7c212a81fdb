"""Loads the tokenizer and the model; whatever cannot be had is said in one line."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import BadInput, Refused
from . import demo


def locate(model: Mapping[str, Any], narrate: Callable[[str], None]) -> str:
    """Return the folder or hub id of a model; builds the demo model when it is not there yet."""
    name: str = model["name_or_path"]
    if name != demo.NAME:
        return name
    import torch

    torch.set_num_threads(
        1
    )  # it is so small that threads only wait for each other (measured: ten times slower
    # on a busy machine, no faster on a quiet one)
    return str(demo.folder(narrate))


def load_tokenizer(model: Mapping[str, Any], where: str) -> Any:
    """Return the tokenizer of the model in ``where``.

    Raises:
        BadInput: It has none that can be loaded, or none that can end an answer.
        Refused: It would have to be downloaded, and that fails.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **_hub_arguments(model))
    except Exception as error:
        raise _explain("tokenizer", where, error) from error
    if tokenizer.eos_token is None:
        raise BadInput(
            f"{where}: the tokenizer has no end-of-text token, so answers would never end",
            hint="set eos_token in tokenizer_config.json",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    model: Mapping[str, Any],
    where: str,
    *,
    gives_rewards: bool = False,
    reads_weights: bool = True,
    packed: Mapping[str, Any] | None = None,
) -> Any:
    """Return the model in ``where``, its weights in the planned number format.

    Args:
        model: The section ``model`` of train.yaml.
        where: Its folder or hub id.
        gives_rewards: A head with one output takes the place of the language model's.
        reads_weights: Whether this rank reads the weights. Otherwise there is only room for them, until the
            engine brings this rank its part.
        packed: Further arguments of ``from_pretrained`` that have weights packed while they are read.

    Raises:
        BadInput: The folder or id has no weights that can be loaded.
        Refused: It would have to be downloaded, and that fails.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    arguments: dict[str, Any] = {"dtype": getattr(torch, model["dtype"]), **_hub_arguments(model)}
    arguments |= packed or {}
    if gives_rewards:
        arguments["num_labels"] = 1
    kind = AutoModelForSequenceClassification if gives_rewards else AutoModelForCausalLM
    try:
        if not reads_weights:
            return _without_weights(kind, where, arguments)
        return kind.from_pretrained(where, **arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _explain("model", where, error) from error


def _without_weights(auto: Any, where: str, arguments: Mapping[str, Any]) -> Any:
    """Return the model with its buffers, and with room for weights that nothing has been written to.

    As transformers 5.23 finishes a model on other ranks than the first; it would read all weights before
    (modeling_utils.py, ``_move_missing_keys_from_meta_to_device``; measured).
    """
    import torch
    from transformers import AutoConfig, GenerationConfig

    hub = {name: value for name, value in arguments.items() if name != "dtype"}
    config = AutoConfig.from_pretrained(where, **hub)
    with torch.device("meta"):
        kind = type(auto.from_config(config, trust_remote_code=arguments["trust_remote_code"]))
    model = kind.from_pretrained(None, config=config, state_dict={}, dtype=arguments["dtype"])
    _make_room(model)
    if model.can_generate():
        with suppress(OSError):  # it has no generation_config.json: the defaults stand
            model.generation_config = GenerationConfig.from_pretrained(where, revision=arguments["revision"])
    return model


def _make_room(model: Any) -> None:
    """Give every weight an address of its own: accelerate 1.15 tells them apart by it (``data_ptr``).

    Memory that is not written to is not resident.
    """
    import torch

    rooms: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in rooms:
                room = torch.empty_like(parameter, device="cpu")
                rooms[id(parameter)] = torch.nn.Parameter(room, requires_grad=parameter.requires_grad)
            setattr(module, name, rooms[id(parameter)])


def _hub_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    return {"revision": model["revision"], "trust_remote_code": model["trust_remote_code"]}


def _explain(what: str, where: str, error: Exception) -> BadInput | Refused:
    if Path(where).is_dir():
        return BadInput(
            f"{where}: the {what} cannot be loaded: {_first_sentence(error)}",
            hint="the folder needs config.json, weights in .safetensors and tokenizer files",
        )
    causes = {type(cause).__name__ for cause in _chain(error)}
    if "GatedRepoError" in causes:
        return Refused(
            f"{where}: the authors give this model only to people who asked for it",
            hint=f"ask on https://huggingface.co/{where}, then set HF_TOKEN",
        )
    if causes & {"RepositoryNotFoundError", "HFValidationError"}:
        return BadInput(
            f"{where}: neither a local folder nor a model on the hub", hint="check model.name_or_path"
        )
    if "RevisionNotFoundError" in causes:
        return BadInput(f"{where}: the hub has no such revision", hint="check model.revision")
    if causes & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError"}:
        return Refused(
            f"{where}: the {what} is not on this machine and the hub cannot be reached",
            hint="give a local folder, or download it where there is a network: hf download " + where,
        )
    return BadInput(
        f"{where}: the {what} cannot be loaded: {_first_sentence(error)}", hint="check model.name_or_path"
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:240]
