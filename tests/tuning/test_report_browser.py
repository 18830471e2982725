"""The page of a sweep in a real browser without a network: drawn, filtered, pointed at, brushed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium
from made_up_sweeps import made_up_sweep
from optuna.trial import TrialState

from tuning.report import write_sweep_report
from tuning.report.results import Results, read_results

pytestmark = pytest.mark.browser
SHOWN = "[...document.querySelectorAll('#all-trials tbody tr:not([hidden])')].map((row) => Number(row.dataset.trial))"
CHOSEN = "[...new Set([...document.querySelectorAll('.chosen')].map((one) => Number(one.dataset.trial)))]"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep with two objectives whose page is written."""
    folder = tmp_path_factory.mktemp("suts") / "two"
    study = made_up_sweep(folder, objectives={"dice": "max", "tre_px": "min"})
    write_sweep_report(folder, study)
    return read_results(folder, study)


@pytest.fixture(scope="module")
def opened(chromium: Chromium, sweep: Results) -> Chromium:
    """Its page, opened once: each test leaves it as it found it."""
    chromium.look()
    chromium.open((sweep.folder / "report.html").as_uri())
    chromium.until("document.documentElement.dataset.drawn")
    return chromium


@pytest.fixture
def page(opened: Chromium) -> Iterator[Chromium]:
    """The page; what its console says during a test fails it."""
    yield opened
    assert opened.complaints == []


def plot(title: str) -> str:
    """The plotly element under a figure's caption."""
    captions = "[...document.querySelectorAll('figure.drawn figcaption')]"
    return f"{captions}.find((one) => one.textContent === {title!r}).parentElement.querySelector('.plotly')"


def point(title: str, number: int) -> str:
    """Where the last point of a trial is in a figure, on the screen."""
    return f"""(() => {{
        const box = {plot(title)};
        box.scrollIntoView({{block: "center", behavior: "instant"}});
        const trace = box._fullData.find((one) => one.meta.trial === {number});
        const {{xaxis, yaxis, _size}} = box._fullLayout, at = box.getBoundingClientRect(), k = trace.x.length - 1;
        return [at.x + _size.l + xaxis.c2p(trace.x[k]), at.y + _size.t + yaxis.c2p(trace.y[k])];
    }})()"""


def test_the_page_is_drawn_quiet_and_alone(page: Chromium) -> None:
    assert {url.partition(":")[0] for url in page.requests} == {"file"}
    assert len(page.requests) == 1
    drawn = page.run(
        """[...document.querySelectorAll('figure.drawn')].filter((one) => !one.closest('[hidden]')).map((one) => {
             const box = one.querySelector('svg.main-svg').getBoundingClientRect();
             return [one.dataset.live, box.width > 250, box.height > 100, one.querySelectorAll('.trace').length > 0];
           })"""
    )
    assert drawn == [["true", True, True, True]] * 9  # front, importance, three slices, map, curves, seeds, time
    assert page.run("document.documentElement.scrollWidth") == page.run("document.documentElement.clientWidth")
    buttons = page.run("[...document.querySelectorAll('.modebar-btn')].map((one) => one.dataset.title)")
    assert buttons
    assert not [title for title in buttons if re.search("share|cloud|edit", title, re.IGNORECASE)]


def test_words_and_states_filter_the_rows(page: Chromium) -> None:
    assert sorted(page.run(SHOWN)) == list(range(12))
    page.click(*page.place("document.getElementById('find')"))
    page.type("mind 20")
    with_mind = page.run(SHOWN)
    assert with_mind
    for number in with_mind:
        text = page.run(f"document.querySelector('#all-trials tr[data-trial=\"{number}\"]').textContent")
        assert "mind" in text
        assert "20" in text
    assert page.run("document.getElementById('count').textContent") == f"{len(with_mind)} of 12 trials"
    page.run("document.getElementById('find').value = ''")
    state = "document.getElementById('state')"
    page.run(f"{state}.value = 'stopped early', {state}.dispatchEvent(new Event('change'))")
    assert page.run(SHOWN) == [5, 8]
    page.click(*page.place("document.getElementById('clear')"))
    assert len(page.run(SHOWN)) == 12


def test_a_heading_sorts_by_the_number_not_its_text(page: Chromium) -> None:
    heading = "[...document.querySelectorAll('#all-trials th')].find((one) => one.textContent === 'feature_lr')"
    page.click(*page.place(f"{heading}.querySelector('button')"))
    rates = page.run(
        "[...document.querySelectorAll('#all-trials tbody tr')].map((row) => Number(row.cells[4].dataset.sort))"
    )
    assert rates == sorted(rates)
    assert len(set(rates)) == 12


def test_pointing_at_a_curve_names_its_trial_and_settings(page: Chromium, sweep: Results) -> None:
    worst = min(sweep.ranked, key=lambda trial: trial.values[0])
    x, y = page.run(point("dice over training", worst.number))
    page.move(x, y)
    told = page.until(f"{plot('dice over training')}.querySelector('.hoverlayer .hovertext')?.textContent")
    assert told.startswith(f"trial {worst.number}, finished")
    for part in ("dice 0.", "± 0.01", "feature_lr = ", "features = ", "grid_spacing = ", "validation 8"):
        assert part in told
    page.click(x, y)
    assert page.until(f"{CHOSEN}.length && {CHOSEN}") == [worst.number]
    page.click(x, y)
    page.until(f"{CHOSEN}.length === 0")


def test_a_chosen_row_stands_out_everywhere_and_steps_back_again(page: Chromium) -> None:
    pick = "document.querySelector('#all-trials tr[data-trial=\"2\"] .pick')"
    page.run(f"{pick}.focus()")
    page.key("Enter")
    assert page.run(f"{pick}.getAttribute('aria-pressed')") == "true"
    assert page.run(CHOSEN) == [2]
    curves = f"{plot('dice over training')}._fullData.map((one) => [one.meta.trial, one.opacity])"
    opacities = dict(page.run(curves))
    assert opacities.pop(2) == 1
    assert max(opacities.values()) < 0.2
    slices = f"{plot('dice over features')}._fullData[0]"
    assert page.run(f"{slices}.selectedpoints.map((i) => {slices}.meta.trials[i])") == [2]
    page.click(*page.place(pick))
    page.until(f"{CHOSEN}.length === 0")
    assert min(dict(page.run(curves)).values()) > 0.5


def test_a_range_on_an_axis_keeps_its_trials_by_pointer_and_by_keys(page: Chromium, sweep: Results) -> None:
    axis = "[...document.querySelectorAll('.dimension')].find((one) => one.textContent.includes('{}'))"
    rate, dice = (axis.format(name) for name in ("feature_lr", "dice"))
    x, middle = page.place(f"{rate}.querySelector('.grip')")
    height = page.run(f"{rate}.querySelector('.grip').getBoundingClientRect().height")
    page.drag((x, middle), (x, middle + height / 2))  # the lower half of 1e-4 to 1e-1
    low = {trial.number for trial in sweep.ranked if trial.config["feature_lr"] <= 10**-2.5}
    assert set(page.run(SHOWN)) == low
    assert 0 < len(low) < len(sweep.ranked)
    page.click(x, middle)
    assert len(page.run(SHOWN)) == 12

    page.run(f"{dice}.focus()")
    page.key("ArrowDown")  # takes the best quarter first
    best = page.run(SHOWN)
    assert sweep.ranked[0].number in best
    assert len(best) < len(sweep.ranked)
    page.key("Escape")
    assert len(page.run(SHOWN)) == 12


def test_pointing_at_a_line_of_the_parallel_coordinates_tells_the_trial(page: Chromium) -> None:
    x, y = page.run(
        """(() => { const svg = document.querySelector('.parallel');
             svg.scrollIntoView({block: "center", behavior: "instant"});
             const path = svg.querySelector('.run[data-trial="0"]'), ys = path.dataset.ys.split(' ').map(Number);
             const xs = [...svg.querySelectorAll('.dimension')].map((one) => Number(one.dataset.x));
             const at = new DOMPoint(0.8 * xs[0] + 0.2 * xs[1], 0.8 * ys[0] + 0.2 * ys[1]);
             const point = at.matrixTransform(svg.getScreenCTM()); return [point.x, point.y]; })()"""
    )
    page.move(x, y)
    assert page.until("document.querySelector('.lying .tip').innerText").startswith("trial 0, finished")
    page.move(x, 5)
    page.until("document.querySelector('.lying .tip').innerText === ''")


def test_a_select_box_shows_another_pair_of_fields(page: Chromium) -> None:
    select = "document.querySelector('[data-choose=contours]')"
    labels = page.run(f"[...{select}.options].map((one) => one.text)")
    assert len(labels) == 6  # three pairs of fields, two objectives
    page.run(f"{select}.value = '5', {select}.dispatchEvent(new Event('change'))")
    title = "tre_px over features and grid_spacing"
    size = page.until(f"{plot(title)}.querySelector('svg.main-svg')?.getBoundingClientRect().width")
    assert size > 800
    assert page.run("document.querySelectorAll('[data-set=contours]:not([hidden])').length") == 1


def test_dark_and_light_have_their_own_colors(page: Chromium) -> None:
    color = f"{plot('Time')}._fullData[0].marker.color"
    light = page.run(color)
    page.look(dark=True)
    dark = page.until(f"({color} !== {light!r}) && {color}")
    assert (light, dark) == ("#0072b2", "#56b4f0")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 27)"
    page.look()


def test_a_phone_scrolls_figures_and_tables_but_never_the_page(page: Chromium) -> None:
    page.look(width=390, height=844)
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.look()


@pytest.mark.parametrize("states", [[], [TrialState.COMPLETE], [TrialState.FAIL] * 3, [TrialState.RUNNING]])
def test_sweeps_with_little_in_them_are_quiet_too(chromium: Chromium, tmp_path: Path, states: list[TrialState]) -> None:
    write_sweep_report(tmp_path / "sweep", made_up_sweep(tmp_path / "sweep", states=states))
    chromium.open((tmp_path / "sweep" / "report.html").as_uri())
    chromium.until("document.documentElement.dataset.drawn")
    assert chromium.complaints == []
