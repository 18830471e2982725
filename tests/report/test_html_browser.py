"""The report in a real browser, offline: charts are drawn, what can be clicked works, nothing complains."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medray.report.html import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome in PATH"),
]
RunMaker = Callable[..., Path]


class Browser:
    """Headless Chromium without a network. Every call is a fresh process with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile

    def _run(self, page: Path, *flags: str) -> tuple[str, list[str]]:
        assert BROWSER is not None
        command = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={self.profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=3000",
            *flags,
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def dom(self, page: Path) -> tuple[str, list[str]]:
        """The document after its scripts have run, and what the console said."""
        return self._run(page, "--dump-dom")

    def screenshot(self, page: Path, *, dark: bool, width: int = 1200, height: int = 3000) -> np.ndarray[Any, Any]:
        """Pixels, (height, width, 3)."""
        target = self.profile.parent / f"{page.stem}-{'dark' if dark else 'light'}.png"
        scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        _, console = self._run(page, f"--screenshot={target}", f"--window-size={width},{height}", *scheme)
        assert console == []
        with Image.open(target) as image:
            return np.asarray(image.convert("RGB"))

    def act(self, report: Path, script: str) -> Any:
        """Run a function body in a copy of the report after its own script; what it returns comes back as JSON."""
        added = (
            f"const answer = await (async () => {{ {script} }})();"
            "document.documentElement.dataset.answer = JSON.stringify(answer);"
        )
        wrapped = f"(async () => {{ {added} }})()"
        digest = base64.b64encode(hashlib.sha256(wrapped.encode()).digest()).decode()
        text = report.read_text(encoding="utf-8")
        text = text.replace("script-src 'sha256-", f"script-src 'sha256-{digest}' 'sha256-", 1)
        page = report.with_name("acted.html")
        page.write_text(text.replace("</body>", f"<script>{wrapped}</script></body>"), encoding="utf-8")
        dom, console = self.dom(page)
        assert console == []
        found = re.search(r'<html[^>]* data-answer="([^"]*)"', dom)
        assert found is not None, "the added script did not finish"
        return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(tmp_path_factory.mktemp("browser") / "profile")


@pytest.fixture(scope="module")
def report(finished_run: Path) -> Path:
    return write_report(finished_run)


def test_console_errors_and_blocked_scripts_would_be_seen(browser: Browser, report: Path, tmp_path: Path) -> None:
    page = tmp_path / "injected.html"
    text = report.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", "<script>document.title = 'taken'</script></body>"), encoding="utf-8")
    dom, console = browser.dom(page)
    assert any("Content Security Policy" in line for line in console)
    assert "<title>taken" not in dom


def test_charts_are_drawn_and_nothing_complains(browser: Browser, report: Path) -> None:
    dom, console = browser.dom(report)
    assert console == []
    assert 'data-ready="true"' in dom
    assert dom.count('data-live="true"') == dom.count("data-chart=") == 3
    shapes = browser.act(
        report,
        """return [...document.querySelectorAll('.series path')].map((path) => {
               const box = path.getBoundingClientRect();
               return [box.width, box.height, getComputedStyle(path).stroke];
           });""",
    )
    assert len(shapes) == 2 + 5 + 1  # loss of two parts, Dice of four organs and overall, end-point error
    assert all(width > 200 and height > 50 and stroke != "none" for width, height, stroke in shapes)


def test_light_and_dark_both_show_ink_on_their_own_page(browser: Browser, report: Path) -> None:
    light, dark = (browser.screenshot(report, dark=dark) for dark in (False, True))
    assert light.shape == dark.shape
    assert np.median(light) > 230
    assert np.median(dark) < 50
    for pixels, curve in ((light, (0x00, 0x72, 0xB2)), (dark, (0x56, 0xB4, 0xF0))):
        matches = np.all(np.abs(pixels.astype(int) - curve) < 12, axis=-1)
        assert matches.sum() > 300, "the first curve is not visible"


def test_pointing_at_a_chart_tells_the_values_there(browser: Browser, report: Path) -> None:
    told = browser.act(
        report,
        """const figure = document.querySelector('figure[data-chart="0"]');
           const svg = figure.querySelector('svg');
           const box = svg.getBoundingClientRect();
           const at = (share) => svg.dispatchEvent(new PointerEvent('pointermove',
               {clientX: box.left + box.width * share, clientY: box.top + 50}));
           at(1);
           const end = figure.querySelector('.tip').innerText;
           figure.querySelector('.key').click();
           at(1);
           const without = figure.querySelector('.tip').innerText;
           const off = getComputedStyle(figure.querySelector('g[data-series="0"]')).display;
           svg.dispatchEvent(new PointerEvent('pointerleave'));
           return [end, without, off, figure.querySelector('.tip').innerText];""",
    )
    last = {}
    for line in (report.parent / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        last[record["name"]] = record["loss"]
    end, without, off, left = told
    assert "step 123301" in end
    for name in ("train", "validation"):
        shown = re.search(rf"{name}\s+([\d.]+)", end)
        assert shown is not None
        assert float(shown[1]) == pytest.approx(last[name], rel=1e-3)
    assert "train" not in without
    assert "validation" in without
    assert off == "none"
    assert left == ""


def test_case_table_sorts_by_number_both_ways_with_dashes_last(browser: Browser, report: Path) -> None:
    column, up, down = browser.act(
        report,
        """document.querySelectorAll('details').forEach((one) => one.open = true);
           const table = document.querySelector('#results table.sortable');
           const headings = [...table.tHead.rows[0].cells];
           const column = headings.findIndex((cell) => cell.textContent === 'dice_spleen');
           const values = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
           headings[column].querySelector('button').click();
           const up = values();
           headings[column].querySelector('button').click();
           return [headings[column].getAttribute('aria-sort'), up, values()];""",
    )
    assert column == "descending"
    assert up[-4:] == down[-4:] == ["–"] * 4  # one case without spleen in each of four variants
    numbers = [float(text) for text in up[:-4]]
    assert len(numbers) == 32 + 9  # and the nine cases before the method
    assert numbers == sorted(numbers)
    assert [float(text) for text in down[:-4]] == sorted(numbers, reverse=True)


def test_figures_enlarge_and_arrows_turn_the_page(browser: Browser, report: Path) -> None:
    opened, first, second, closed = browser.act(
        report,
        """const dialog = document.getElementById('lightbox');
           document.querySelector('.zoom').click();
           const opened = dialog.open && dialog.querySelector('img').getBoundingClientRect().width;
           const first = dialog.querySelector('p').textContent;
           dialog.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}));
           const second = dialog.querySelector('p').textContent;
           dialog.querySelector('.close').click();
           return [opened, first, second, dialog.open];""",
    )
    assert opened >= 320
    assert "The best case" in first
    assert "The worst case" in second
    assert closed is False


def test_phone_scrolls_tables_but_never_the_page(browser: Browser, report: Path, tmp_path: Path) -> None:
    text = html.escape(report.read_text(encoding="utf-8"), quote=True)
    page = tmp_path / "phone.html"
    page.write_text(
        f'<!doctype html><iframe width="390" height="844" srcdoc="{text}"></iframe><script>'
        "document.querySelector('iframe').onload = (event) => {"
        "const root = event.target.contentDocument.documentElement;"
        "document.body.dataset.widths = [root.scrollWidth, root.clientWidth]; };</script>",
        encoding="utf-8",
    )
    dom, _ = browser.dom(page)
    found = re.search(r'data-widths="(\d+),(\d+)"', dom)
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= 390


@pytest.mark.parametrize("parts", [("config", "claim", "result"), ("config", "log"), ()])
def test_other_kinds_of_run_are_quiet_too(browser: Browser, make_run: RunMaker, parts: tuple[str, ...]) -> None:
    dom, console = browser.dom(write_report(make_run(*parts)))
    assert console == []
    assert 'data-ready="true"' in dom
