"""The tables of other tools' keys: every key has a row, and every row leads somewhere."""

import dataclasses
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from ftwiz.engine.imports import FORMATS
from ftwiz.engine.imports.accelerate import FSDP_OPTIONS
from ftwiz.engine.imports.formats import ACCELERATE, DEEPSPEED, LLAMAFACTORY, TRL, Format
from ftwiz.engine.imports.llamafactory import FIELDS
from ftwiz.engine.imports.rows import How
from ftwiz.engine.job.schema import known_part
from ftwiz.engine.stages.common import DECIDED_ELSEWHERE, KEPT

OTHERS = ("DPOConfig", "KTOConfig", "RewardConfig", "GRPOConfig", "RLOOConfig")
LATER = {"method.target_parameters"}
"""Keys of ours that may come; until then a file that needs one is refused."""


@pytest.fixture
def fields_of(require: Callable[[bool, str], None]) -> Callable[..., set[str]]:
    """``fields_of("trl", "SFTConfig")``: the arguments of an installed dataclass."""

    def fields(module: str, *names: str) -> set[str]:
        package = pytest.importorskip(module)
        return {field.name for name in names for field in dataclasses.fields(getattr(package, name))}

    return fields


def test_all_251_fields_of_llamafactory_have_a_row(corpus: Path) -> None:
    inventory = corpus.parent / "research" / "mission.md"
    if not inventory.is_file():
        pytest.skip(f"no {inventory}: the list of fields")
    text = inventory.read_text(encoding="utf8")
    part = text[text.index("## C. LLaMA-Factory") : text.index("## D. Seed")]
    fields = re.findall(r"^\| `([a-z_0-9]+)` \|", part, re.MULTILINE)
    assert len(fields) == 251
    assert set(fields) - LLAMAFACTORY.keys.keys() == set()
    assert set(fields) - FIELDS.keys() == {"seed"}, "which transformers has too"


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_row_has_what_its_kind_needs(form: Format) -> None:
    for key, row in form.keys.items():
        assert row.key == key
        if row.how in {How.DROP, How.SECRET, How.REFUSE, How.FOLLOW}:
            assert row.reason, key
        if row.how is How.TAKE:
            assert row.target, key


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_target_is_a_key_of_a_job(form: Format) -> None:
    for row in (*form.keys.values(), *FSDP_OPTIONS.values()):
        if row.how is How.TAKE and row.target not in LATER:
            keys = row.target.split(".")
            known, _ = known_part(keys)
            assert list(known) == keys[:2], row.key


def test_what_is_passed_on_is_an_argument_of_the_trainer(fields_of: Callable[..., set[str]]) -> None:
    known = fields_of("trl", "SFTConfig", *OTHERS)
    for form in FORMATS:
        for row in form.keys.values():
            if row.target.startswith("train.extra."):
                name = row.target.removeprefix("train.extra.")
                assert name in known, row.key
                assert name not in DECIDED_ELSEWHERE, row.key
                assert name not in KEPT, row.key


def test_every_argument_of_the_installed_trainers_has_a_row(fields_of: Callable[..., set[str]]) -> None:
    arguments = fields_of("trl", "SFTConfig", *OTHERS, "ModelConfig", "ScriptArguments")
    assert arguments - TRL.keys.keys() == set()
    assert fields_of("transformers", "TrainingArguments") - LLAMAFACTORY.keys.keys() == set()


def test_every_key_of_accelerate_and_deepspeed_has_a_row(fields_of: Callable[..., set[str]]) -> None:
    known = {key.split(".")[0] for key in ACCELERATE.keys}
    assert fields_of("accelerate.commands.config.config_args", "ClusterConfig") - known == set()
    zero = pytest.importorskip("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    rows = {key.split(".")[1] for key in DEEPSPEED.keys if key.startswith("zero_optimization.")}
    assert set(zero.model_fields) - rows == set()


def test_the_page_of_the_keys_is_what_the_tables_say() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = runpy.run_path(str(docs / "make_imports.py"))["keys_page"]()
    written = (docs / "import-keys.md").read_text(encoding="utf8")
    assert written == page, "out of date; write it again with: python docs/make_imports.py"
