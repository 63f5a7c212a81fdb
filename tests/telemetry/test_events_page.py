import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_events_is_the_one_that_the_code_describes() -> None:
    page = runpy.run_path(str(DOCS / "make_events.py"))["events_page"]()
    written = (DOCS / "events.md").read_text(encoding="utf8")
    assert written == page, "docs/events.md is out of date; write it again with: python docs/make_events.py"


def test_the_page_names_every_field_with_its_meaning() -> None:
    page = (DOCS / "events.md").read_text(encoding="utf8")
    assert "| `exact_match` | float, may be absent | Share of generated answers" in page
    assert "`info` or `warning` or `error`" in page
