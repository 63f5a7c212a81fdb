"""The command that makes a folder of a run's model: merged, converted, ready for ``from_pretrained``."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..engine.errors import BadInput, ExitCode, Refused
from ..engine.export import Form, Need, Source, Wanted, find_source, needs_of
from ..engine.export import export as write
from ..engine.export.needs import base_config, check_base, check_checkpoint, stored_dtype
from ..engine.export.process import check_output, check_stack, push
from ..engine.rundir import RunFolder, find, runs_root
from ..engine.specs.job import DEMO_MODEL
from ..engine.stages.methods import CONFIGS
from ..engine.worker import demo
from ..engine.worker.settings import Settings, read_settings
from ..tui.text import size
from .follow import say

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_SIZE = re.compile(r"^[1-9]\d{0,5}(KB|MB|GB|KiB|MiB|GiB)$")


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option(
    "-o", "--output", metavar="FOLDER", required=True, help="Where to; a folder that is not there yet."
)
@click.option("--checkpoint", metavar="NAME", help="A checkpoint of the run instead of its trained model.")
@click.option("--dtype", type=click.Choice([*DTYPES]), help="Number format; when absent the one of the base.")
@click.option("--shard-size", default="5GB", metavar="SIZE", help="Most of a file: 5GB when absent.")
@click.option("--adapter-only", is_flag=True, help="Only the adapter, not merged.")
@click.option("--push", "repository", metavar="REPO", help="Upload it to the hub too; needs HF_TOKEN.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(run: str | None, *, output: str, repository: str | None, as_json: bool, **choices: Any) -> int:
    """Write a run's model as a folder that from_pretrained reads; of the newest run when none is named.

    The adapter of a LoRA run is merged into its base. Tokenizer and chat template go along.
    """
    if not _SIZE.fullmatch(choices["shard_size"]):
        raise BadInput(
            f"--shard-size {choices['shard_size']!r} is not a size", hint="for example 5GB or 500MB"
        )
    if repository is not None and not os.environ.get("HF_TOKEN"):
        raise Refused(
            "--push needs HF_TOKEN in the environment", hint="make a token at huggingface.co/settings"
        )
    folder, target = find(runs_root(os.environ), run), Path(output).absolute()
    check_output(target)
    check_stack()
    wanted, need = _wanted(folder, target, **choices)
    say([_announcement(wanted, need)])
    need.check(target.parent)
    result = write(wanted, lambda text: say([text])) | {"path": str(target), "dtype": wanted.dtype}
    if not as_json:
        click.echo(str(target))
    say([f"{size(result['num_bytes'])} in {len(result['files'])} files"])
    if repository is not None:
        result["url"] = push(target, repository, lambda text: say([text]))
    if as_json:
        click.echo(json.dumps(result, indent=2))
    return ExitCode.OK


def _wanted(
    run: RunFolder,
    target: Path,
    *,
    checkpoint: str | None,
    dtype: str | None,
    shard_size: str,
    adapter_only: bool,
) -> tuple[Wanted, Need]:
    settings = read_settings(run)
    if checkpoint is not None:
        say([f"reading every file of {checkpoint} to see that it is whole"])
    source = find_source(run, checkpoint, in_float32=dtype == "fp32")
    if source.folder != run.final_model:
        check_checkpoint(settings.method, run.id)
    base = _base(settings)
    has_adapter = source.form is Form.ADAPTER or (
        source.form.is_shared_out and settings.method["kind"] in CONFIGS
    )
    if adapter_only and not has_adapter:
        raise BadInput(f"{run.id}: trained all weights, and has no adapter", hint="leave out --adapter-only")
    if has_adapter and not adapter_only:
        check_base(base, str(settings.model["name_or_path"]))
    written = DTYPES[dtype] if dtype else _default_dtype(source, base, adapter=has_adapter, only=adapter_only)
    wanted = Wanted(
        folder=str(source.folder),
        form=source.form,
        tokenizer=_tokenizer(run, source, settings),
        stage=settings.stage,
        model={key: value for key, value in settings.model.items() if key != "quantization"},
        method=dict(settings.method),
        dtype=written,
        shard_size=shard_size,
        adapter_only=adapter_only,
        output=str(target),
    )
    return wanted, needs_of(source, base, dtype=written, adapter_only=adapter_only)


def _default_dtype(source: Source, base: Mapping[str, Any] | None, *, adapter: bool, only: bool) -> str:
    """Return the base's format for what is merged into it, and otherwise the one that was trained in."""
    if only:
        return "float32"
    return stored_dtype(source, base if adapter else None)


def _base(settings: Settings) -> dict[str, Any] | None:
    if settings.model["name_or_path"] == DEMO_MODEL:
        return base_config({"name_or_path": str(demo.folder(lambda text: say([text])))})
    return base_config(settings.model)


def _tokenizer(run: RunFolder, source: Source, settings: Settings) -> str:
    """Return where the tokenizer is: checkpoints in parts have none, but the trained model or the base."""
    for folder in (source.folder, run.final_model):
        if (folder / "tokenizer_config.json").is_file():
            return str(folder)
    return str(settings.model["name_or_path"])


def _announcement(wanted: Wanted, need: Need) -> str:
    what = "adapter" if wanted.adapter_only else "model"
    return (
        f"{what} of {Path(wanted.folder).name} in {wanted.dtype}: takes {size(need.host_bytes)} of "
        f"host memory ({need.host_formula}) and {size(need.disk_bytes)} of disk"
    )
