"""The page in a real browser: it opens from disk, sorts, changes its theme, and axe finds nothing.

Needs Chromium with its driver (Debian: chromium, chromium-driver), selenium, and axe-core, either
from axe-core-python or as a file that AXE_CORE names; skipped where one of them is missing.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from optiprune.report import FORMS, make_document, read_runs

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium or chromedriver is not installed", allow_module_level=True)

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(
    global_run: Path, layer_run: Path, killed_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    runs = read_runs([global_run, layer_run, killed_run])
    path.write_text(FORMS["html"](make_document(runs)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The page, freshly loaded in the light; what the console says is asked at the end."""
    prefer(browser, "light")
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def prefer(browser: Any, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def background(browser: Any) -> str:
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def axe_source() -> str:
    if "AXE_CORE" in os.environ:
        return Path(os.environ["AXE_CORE"]).read_text(encoding="utf-8")
    found = find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not there: install axe-core-python, or set AXE_CORE")
    return (Path(found.origin).with_name("axe.min.js")).read_text(encoding="utf-8")


def violations(browser: Any) -> list[dict[str, Any]]:
    browser.execute_cdp_cmd("Runtime.evaluate", {"expression": axe_source()})
    result = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run(document).then((r) => done({violations: r.violations, passes: r.passes.length}));"
    )
    assert result["passes"] > 20  # it did look
    return [
        {"rule": v["id"], "at": [n["target"] for n in v["nodes"]][:3]} for v in result["violations"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(opened: Any, theme: str) -> None:
    prefer(opened, theme)
    for fold in opened.find_elements("css selector", "details"):
        opened.execute_script("arguments[0].open = true", fold)
    opened.execute_script(  # what is out of view is looked at, too
        "for (const x of document.querySelectorAll('.topic')) x.style.contentVisibility = 'visible'"
    )
    assert violations(opened) == []


def test_axe_would_find_one(opened: Any) -> None:
    opened.execute_script(
        "document.querySelector('main img').removeAttribute('alt');"
        "document.querySelector('main p').className = 'axis';"
    )
    assert "image-alt" in {v["rule"] for v in violations(opened)}


def test_the_theme_follows_the_system_and_the_choice(opened: Any) -> None:
    light = background(opened)
    prefer(opened, "dark")
    dark = background(opened)
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    choice = opened.find_element("css selector", "#tools select")
    choice.send_keys("light")
    assert background(opened) == light
    opened.refresh()
    assert background(opened) == light  # it is remembered
    prefer(opened, "light")
    opened.find_element("css selector", "#tools select").send_keys("dark")
    assert background(opened) == dark


def cells(browser: Any, column: int) -> list[str]:
    return browser.execute_script(
        "const t = document.querySelector('#run-1-density table');"
        "return Array.from(t.tBodies[0].rows, (r) => r.cells[arguments[0]].textContent);",
        column,
    )


def test_tables_sort_by_mouse_and_by_key(opened: Any) -> None:
    heads = opened.find_elements("css selector", "#run-1-density th[scope=col]")
    kept = next(i for i, h in enumerate(heads) if h.text.startswith("kept"))
    assert cells(opened, kept) == ["96", "1,120", "280"]
    heads[kept].find_element("tag name", "button").click()
    assert cells(opened, kept) == ["96", "280", "1,120"]  # numbers, not texts
    assert heads[kept].get_attribute("aria-sort") == "ascending"
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert cells(opened, kept) == ["1,120", "280", "96"]
    assert heads[kept].get_attribute("aria-sort") == "descending"
    assert "descending" in opened.find_element("id", "said").get_attribute("textContent")
    heads[0].find_element("tag name", "button").send_keys(Keys.SPACE)
    assert cells(opened, 0) == ["0", "2", "4"]
    assert heads[kept].get_attribute("aria-sort") is None


def test_the_first_tab_skips_to_the_report(opened: Any) -> None:
    opened.find_element("tag name", "body").send_keys(Keys.TAB)
    skip = opened.switch_to.active_element
    assert skip.get_attribute("href").endswith("#content")
    skip.send_keys(Keys.ENTER)
    assert opened.switch_to.active_element.get_attribute("id") == "content"


def test_the_policy_stops_what_is_not_the_page_s_own(browser: Any, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    script = "<script>document.title = 'taken over'</script>"
    attacked = page.with_name("attacked.html")
    attacked.write_text(text.replace("<footer>", f"{script}<footer>"), encoding="utf-8")
    browser.get(attacked.as_uri())
    assert "taken over" not in browser.title
    assert any(
        "Content Security Policy" in entry["message"] for entry in browser.get_log("browser")
    )


def test_nothing_is_wider_than_the_window(opened: Any) -> None:
    for width in (1280, 400):
        opened.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_prints_with_everything_open_and_in_the_light(opened: Any) -> None:
    prefer(opened, "dark")
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")
    features = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    assert background(opened) == "rgb(255, 255, 255)"
    assert not opened.find_element("css selector", "nav").is_displayed()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not opened.find_elements("css selector", "details:not([open])")
    opened.execute_script("dispatchEvent(new Event('afterprint'))")


def test_without_scripts_everything_is_there(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert browser.find_elements("css selector", "th button") == []
        assert not browser.find_element("id", "tools").is_displayed()
        assert browser.find_element("css selector", "#run-1-density table").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
