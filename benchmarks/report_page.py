"""How fast the page of a report of 300 layers opens, in headless Chromium, from disk.

    python -m benchmarks.report_page [--layers 300] [--opens 7] [--images docs/images]

Two real runs of `optiprune prune` over a residual network of 300 Linear layers of 96 x 96 (random
weights, correlated inputs), at 50 and 70 % sparsity with the allocation 'owl'; a page of the first
and a page that compares the two. Each opening is in a browser process of its own, with a profile of
its own, so nothing is cached. Times are those of the page's own clock: from the start of the
navigation to the first contentful paint, to the end of the load event, and to the second frame
after it, when nothing of the page is left to lay out. ``--images`` also takes the pictures of
docs/report.md, of runs of examples/run.toml (needs scikit-learn). Needs chromium, chromedriver and
selenium. Writes benchmarks/results/report_page.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine_line

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "report_page.md"
WIDTH, SAMPLES, SEED = 96, 256, 0
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
RUN = """
seed = 0
[model]
factory = "benchmarks.report_page:model"
[data]
calibration = "benchmarks.report_page:inputs"
[prune]
sparsity = 0.5
objective = "reconstruction"
refit = true
[allocation]
method = "owl"
[tune]
epochs = 0
[solver]
name = "greedy"
"""
TIMES = """
const done = arguments[arguments.length - 1];
requestAnimationFrame(() => requestAnimationFrame(() => {
  const [page] = performance.getEntriesByType("navigation");
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  done([paint ? paint.startTime : null, page.loadEventEnd, performance.now()]);
}));
"""


class Residual(nn.Module):
    """x + small steps, so that 300 layers stay in range; scales differ from layer to layer."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + 0.2 * torch.relu(layer(nn.functional.layer_norm(x, (WIDTH,))))
        return x


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        network = Residual(int(os.environ.get("REPORT_LAYERS", "300")))
        with torch.no_grad():
            for layer in network.layers:  # heavy tails in some layers more than in others
                layer.weight.mul_(1 + torch.randn_like(layer.weight).abs() ** (3 * torch.rand(1)))
    return network.eval()


def inputs() -> list[Tensor]:
    """Correlated, so that the layers' Gram matrices are no multiples of the identity."""
    generator = torch.Generator().manual_seed(SEED + 1)
    mix = torch.randn(WIDTH, WIDTH, generator=generator)
    return list((torch.randn(SAMPLES, WIDTH, generator=generator) @ mix).split(64))


@contextmanager
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as profile:
        options = Options()
        options.binary_location = _found("chromium")
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(_found("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise SystemExit(
            f"{program} is not installed (Debian: apt install chromium chromium-driver)"
        )
    return path


def opened(page: Path) -> tuple[list[float], list[str], str]:
    """(milliseconds to paint, load and second frame; what the console says; the browser)."""
    with browser() as driver:
        driver.get(page.as_uri())
        times = driver.execute_async_script(TIMES)
        console = [entry["message"] for entry in driver.get_log("browser")]
        return times, console, driver.capabilities["browserVersion"]


def optiprune(*arguments: object) -> float:
    """Seconds that a command took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "optiprune", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measured(name: str, page: Path, seconds: float, opens: int) -> tuple[str, str]:
    """(a row of the table, version of the browser)."""
    times, console, version = [], [], ""
    for _ in range(opens):
        found, said, version = opened(page)
        times.append(found)
        console += said
    cells = [f"{median(t):.0f} ({max(t):.0f})" for t in zip(*times, strict=True)]
    size = f"{page.stat().st_size / 2**20:.2f}"
    row = f"| {name} | {size} | {seconds:.1f} | {' | '.join(cells)} | {len(console)} |"
    for line in console:
        print(line, file=sys.stderr)
    return row, version


def picture(
    page: Path, target: Path, theme: str, selector: str, height: int, *, width: int = 1100
) -> None:
    """A screenshot from the top of what ``selector`` finds."""
    from PIL import Image

    with browser() as driver:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(page.as_uri())
        driver.execute_script(
            "document.querySelector(arguments[0]).scrollIntoView({block: 'start'})", selector
        )
        time.sleep(0.5)  # pictures are decoded as they come into view
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as image:
            image.convert("RGB").save(target, optimize=True)


def printed(page: Path, target: Path) -> None:
    """The first sheets as the printer gets them, side by side (needs pdftoppm of poppler-utils)."""
    from PIL import Image

    with browser() as driver, tempfile.TemporaryDirectory() as folder:
        driver.get(page.as_uri())
        sheet = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
        pdf = Path(folder) / "page.pdf"
        pdf.write_bytes(base64.b64decode(sheet["data"]))
        command = [_found("pdftoppm"), "-png", "-r", "60", "-l", "3", str(pdf), f"{folder}/s"]
        subprocess.run(command, check=True)
        sheets = [Image.open(p).convert("RGB") for p in sorted(Path(folder).glob("s*.png"))]
        gap = 12
        size = (sum(s.width + gap for s in sheets) + gap, sheets[0].height + 2 * gap)
        whole = Image.new("RGB", size, (128, 128, 128))
        for i, s in enumerate(sheets):
            whole.paste(s, (gap + i * (s.width + gap), gap))
        whole.quantize(64).save(target, optimize=True)


def pictures(folder: Path, work: Path, many: Path) -> None:
    """Those of docs/report.md."""
    example = ROOT / "examples" / "run.toml"
    runs = [work / "runs" / name for name in ("annealing", "tabu", "layers")]
    optiprune("prune", example, "--out", runs[0], "--force")
    optiprune("prune", example, "--out", runs[1], "--force", "--solver", "tabu", "--sparsity", 0.95)
    text = example.read_text().replace('"global"', '"reconstruction"')
    layers = ROOT / "examples" / ".report-layers.toml"
    layers.write_text(text)
    try:
        optiprune("prune", layers, "--out", runs[2], "--force", "--sparsity", 0.8)
    finally:
        layers.unlink()
    one, all_ = work / "example.html", work / "examples.html"
    optiprune("report", runs[0], "--out", one, "--force")
    optiprune("report", *runs, "--out", all_, "--force")
    folder.mkdir(parents=True, exist_ok=True)
    picture(one, folder / "report-light.png", "light", "body", 1000)
    picture(one, folder / "report-dark.png", "dark", "#run-1-promises", 900)
    picture(one, folder / "report-paths.png", "light", "#run-1-paths", 640)
    picture(all_, folder / "report-comparison.png", "light", "body", 1250)
    picture(many, folder / "report-300-layers.png", "dark", "#run-1-density", 1000)
    picture(all_, folder / "report-masks.png", "light", "#run-1-masks", 560)
    printed(one, folder / "report-print.png")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--opens", type=int, default=7)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of the runs; there ones are not run anew")
    options = parser.parse_args(arguments)
    os.environ["REPORT_LAYERS"] = str(options.layers)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as temporary:
        work = options.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        (work / "run.toml").write_text(RUN)
        runs = [work / "half", work / "sparse"]
        for folder, sparsity in zip(runs, (0.5, 0.7), strict=True):
            if not (folder / "summary.json").exists():
                taken = optiprune(
                    "prune", work / "run.toml", "--out", folder, "--sparsity", sparsity
                )
                print(f"{folder.name}: pruned in {taken:.0f} s", file=sys.stderr)
        pages = [work / "one.html", work / "both.html"]
        seconds = [
            optiprune("report", runs[0], "--out", pages[0], "--force"),
            optiprune("report", *runs, "--out", pages[1], "--force"),
        ]
        names = (f"{options.layers} layers", f"two runs of {options.layers} layers")
        rows = [measured(*row, options.opens) for row in zip(names, pages, seconds, strict=True)]
        version = rows[0][1]
        lines = [
            "# Opening the page of a report",
            "",
            f"{machine_line().strip()} Chromium {version}, headless, without a GPU; seed {SEED}; "
            f"load average {os.getloadavg()[0]:.1f}, that of other work included; "
            f"{options.opens} openings, each in a new browser. Milliseconds from the start of the "
            "navigation: median (largest).",
            "",
            "| page | MiB | made in s | first paint | loaded | second frame after it | console |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *(row for row, _ in rows),
            "",
            "`made in s` is the whole command `optiprune report`, the start of Python and the "
            "loading of torch included; `console` counts its messages.",
        ]
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(RESULT.read_text())
        if options.images is not None:
            pictures(options.images, Path(temporary), pages[0])


if __name__ == "__main__":
    main()
