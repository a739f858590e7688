"""The three forms: nothing from a run is markup or script in any of them."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from optiprune.report import FORMS, RunData, make_document, read_run, read_runs
from optiprune.report.document import Cell, Document, Part, Section, table

EVIL = (
    "</title></script><script>alert(1)</script><img src=x onerror=alert(2)> "
    "\"' &amp; | `a` {{ 7*7 }}"
)


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, texts, and the contents of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._inside[-1] if self._inside else "", []).append(data)


@pytest.fixture
def evil(global_run: Path) -> RunData:
    """A run whose every text is an attack."""
    run = read_run(global_run)
    assert run.report is not None
    layers = (replace(run.layers[0], name=EVIL), *run.layers[1:])
    report = replace(run.report, solver=EVIL, notes=(EVIL,), layers=layers)
    history = tuple(replace(r, status=EVIL, layers=(EVIL,)) for r in run.history)
    return replace(
        run,
        name=EVIL,
        report=report,
        layers=layers,
        history=history,
        dense={EVIL: 0.5},
        config={EVIL: EVIL},
        version=EVIL,
        faults=(EVIL,),
    )


def test_the_page_has_no_tags_of_the_run(evil: RunData, global_run: Path) -> None:
    harmless = Reader(FORMS["html"](make_document([read_run(global_run)])))
    page = Reader(FORMS["html"](make_document([evil])))
    assert {t for t, _ in page.tags} == {t for t, _ in harmless.tags}
    assert sum(t == "script" for t, _ in page.tags) == 1
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    assert any(EVIL in text for text in page.texts["h1"])
    assert not any("49" in text for text in page.texts["h1"])


def test_the_page_allows_its_own_style_and_script_alone(global_run: Path) -> None:
    page = FORMS["html"](make_document([read_run(global_run)]))
    found = Reader(page)
    (policy,) = [a["content"] for t, a in found.tags if a.get("http-equiv")]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag in ("style", "script"):
        (content,) = found.texts[tag]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not any("style" in a for _, a in found.tags)


def test_the_page_refers_to_nothing_outside(global_run: Path, layer_run: Path) -> None:
    found = Reader(FORMS["html"](make_document(read_runs([global_run, layer_run]))))
    ids = {a["id"] for _, a in found.tags if "id" in a}
    assert len(ids) == sum("id" in a for _, a in found.tags)
    for _, attributes in found.tags:
        for name in ("src", "href", "action", "data", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value
            if value.startswith("#"):
                assert value[1:] in ids
    assert "url(" not in found.texts["style"][0]
    assert "@import" not in found.texts["style"][0]


def test_pictures_and_charts_have_texts(layer_run: Path) -> None:
    found = Reader(FORMS["html"](make_document([read_run(layer_run)])))
    assert sum(t == "img" for t, _ in found.tags) == 4  # three masks and the scale
    assert all(a.get("alt") for t, a in found.tags if t == "img")
    charts = [a for t, a in found.tags if t == "svg" and a.get("role") == "img"]
    ids = {a["id"] for _, a in found.tags if "id" in a}
    assert charts
    assert all(set((a["aria-labelledby"] or "").split()) <= ids for a in charts)
    assert sum(t == "caption" for t, _ in found.tags) == sum(t == "table" for t, _ in found.tags)


def test_markdown_tables_have_as_many_cells_as_columns(evil: RunData) -> None:
    text = FORMS["markdown"](make_document([evil]))
    assert "<script" not in text.replace("\\<", "")
    widths = []
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)
            widths.append(len(cells))
        elif widths:
            assert len(set(widths)) == 1
            widths = []


def test_json_holds_the_numbers_unrounded(layer_run: Path) -> None:
    run = read_run(layer_run)
    content = json.loads(FORMS["json"](make_document([run])))
    assert (content["format"], content["format_version"]) == ("optiprune-report", 1)
    (part,) = content["parts"]
    by_title = {s["title"]: s for s in part["sections"]}
    rows = by_title["Error per layer"]["tables"][0]["rows"]
    assert [r["after refit"] for r in rows] == [x.error_refit for x in run.layers]
    assert part["state"] == "finished"


def test_json_takes_infinities_as_words() -> None:
    rows = [(Cell("a", "a"), Cell(math.inf, "inf"))]
    section = Section("k", "t", tables=(table("c", ("x", "y"), rows),))
    document = Document("t", "0", (Part("p", "t", "", (), (section,)),))
    content = json.loads(FORMS["json"](document))
    assert content["parts"][0]["sections"][0]["tables"][0]["rows"] == [{"x": "a", "y": "inf"}]


@pytest.mark.parametrize("form", sorted(FORMS))
def test_the_same_run_gives_the_same_text(form: str, global_run: Path) -> None:
    first = FORMS[form](make_document([read_run(global_run)]))
    assert first == FORMS[form](make_document([read_run(global_run)]))
