"""A volume of a report in a real browser without a network: opened, turned, paged through, windowed and closed."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium
from PIL import Image

from medray.engine.rundir import RunDirectory
from medray.figures.scene import make_scene
from medray.report.html import write_report
from medray.system import Figure

pytestmark = pytest.mark.browser
CANVAS = "document.querySelector('.rendering canvas')"
PLANE = "document.querySelectorAll('.plane canvas')"
SLIDERS = "[...document.querySelectorAll('.viewer input')]"
HOT = (10, 20, 30)
SHAPE = (24, 40, 64)
OUTLINE = [0, 224, 160]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, png: bytes) -> Path:
    """A report with a volume whose heat sits in one place, outlined, and with one whose axes have no names."""
    places = np.indices(SHAPE)
    away = sum((index - at) ** 2 for index, at in zip(places, HOT, strict=True))
    image = np.clip(places[2] / 64 + 0.1 * (places[0] % 2), 0, 1)
    heat = np.exp(-away / 20)
    patient = np.array([[0, 0, -2.0, 0], [0, -2.0, 0, 0], [-4.0, 0, 0, 0], [0, 0, 0, 1]])
    scenes = [
        make_scene(image, heat, (4.0, 2.0, 2.0), affine=patient, mask=heat > 0.5),
        make_scene(image, 0 * heat, (1.0, 1.0, 1.0)),
    ]
    run = RunDirectory(tmp_path_factory.mktemp("volumes") / "run")
    run.path.mkdir()
    run.write_figures(
        [Figure(name, "A volume.", png, one) for name, one in zip(("tear", "empty"), scenes, strict=True)]
    )
    return write_report(run.path)


@pytest.fixture
def page(chromium: Chromium, report: Path) -> Iterator[Chromium]:
    """The page with its first volume open; what its console says during a test fails it."""
    chromium.look()
    chromium.open(report.as_uri())
    chromium.click(*chromium.place("document.querySelector('.open-scene')"))
    chromium.until(f"{CANVAS}?.dataset.drawn === 'fine'")
    yield chromium
    assert chromium.complaints == []
    assert sorted({url.partition(":")[0] for url in chromium.requests}) == ["data", "file"]  # pictures, and the page
    assert sum(url.startswith("file") for url in chromium.requests) == 1


def pixels(page: Chromium, canvas: str) -> np.ndarray:
    """Pixels of a canvas, (rows, columns, 3)."""
    png = base64.b64decode(page.run(f"{canvas}.toDataURL()").partition(",")[2])
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def warm(colors: np.ndarray) -> np.ndarray:
    """Where heat shows: red far above blue."""
    return colors[..., 0].astype(int) - colors[..., 2] > 60


def fine(page: Chromium) -> np.ndarray:
    page.until(f"{CANVAS}.dataset.drawn === 'fine'")
    return pixels(page, CANVAS)


def move(page: Chromium, index: int, value: int) -> None:
    """Set a slider as a user's hand does."""
    page.run(
        f"(() => {{ const it = {SLIDERS}[{index}]; it.value = {value}; it.dispatchEvent(new Event('input')); }})()"
    )


def test_the_picture_comes_first_and_the_volume_when_asked(chromium: Chromium, report: Path) -> None:
    chromium.open(report.as_uri())
    assert chromium.run("document.querySelectorAll('.viewer, canvas').length") == 0
    assert chromium.run("document.querySelector('.turnable img').getBoundingClientRect().width") > 100
    chromium.run("document.querySelector('.open-scene').focus()")
    chromium.key("Enter")
    chromium.until(f"{CANVAS}?.dataset.drawn")
    assert chromium.run("document.querySelector('.open-scene').getAttribute('aria-expanded')") == "true"
    assert chromium.run(f"document.activeElement === {CANVAS}")
    chromium.key("Escape")
    assert chromium.run("document.querySelectorAll('.viewer').length") == 0
    assert chromium.run("document.activeElement.className") == "open-scene"
    assert chromium.run("document.activeElement.innerText.startsWith('Turn the volume')")
    assert chromium.complaints == []


def test_everything_that_can_be_used_has_a_name(page: Chromium) -> None:
    names = page.run(f"[...document.querySelectorAll('.viewer canvas'), ...{SLIDERS}].map((it) => it.ariaLabel)")
    assert names == [
        "Rendering of the volume; drag it or press the arrow keys to turn it",
        *("axial, 11 of 24", "coronal, 21 of 40", "sagittal, 31 of 64"),
        *("axial", "coronal", "sagittal", "heat shown from", "heat covers", "brightness of the image"),
    ]
    assert page.run(f"{SLIDERS}.map((it) => it.ariaValueText)")[:4] == ["11 of 24", "21 of 40", "31 of 64", "20 %"]
    assert page.run("document.querySelector('.viewer').ariaLabel") == "Volume of tear"


def test_dragging_turns_it_coarsely_at_once_and_finely_at_rest(page: Chromium) -> None:
    before = pixels(page, CANVAS)
    x, y = page.place(CANVAS)
    page.drag((x, y), (x + 90, y + 20))
    page.until(f"{CANVAS}.dataset.drawn === 'coarse'")
    coarse = pixels(page, CANVAS)
    after = fine(page)
    assert np.abs(after.astype(int) - before).mean() > 5
    assert 0 < np.abs(after.astype(int) - coarse).mean() < 5
    assert warm(after).any()


def test_heat_is_seen_where_it_is(page: Chromium) -> None:
    """Turned to the front by keys: rows are the first axis downward, columns the third to the right."""
    scrolled = page.run("scrollY")
    for key in (*["ArrowRight"] * 5, *["ArrowUp"] * 2):  # from 0.5 and 0.25 rad to 0 and 0.05
        page.key(key)
    page.until(f"{CANVAS}.dataset.drawn === 'coarse'")
    assert page.run("scrollY") == scrolled
    rows, columns = np.nonzero(warm(fine(page)))
    diagonal = np.linalg.norm(np.multiply(SHAPE, (4.0, 2.0, 2.0)))
    down, right = ((values.mean() + 0.5 - 160) * diagonal / 320 for values in (rows, columns))
    assert right == pytest.approx((HOT[2] - 31.5) * 2.0, abs=2)
    assert down == pytest.approx((HOT[0] - 11.5) * 4.0, abs=5)


def test_planes_start_at_the_hottest_place_and_move_with_their_sliders(page: Chromium) -> None:
    before = [pixels(page, f"{PLANE}[{number}]") for number in range(3)]
    for number, axes in enumerate(((1, 2), (0, 2), (0, 1))):
        sizes = [SHAPE[axis] * (4.0, 2.0, 2.0)[axis] for axis in axes]
        assert before[number].shape[0] / before[number].shape[1] == pytest.approx(sizes[0] / sizes[1], rel=0.01)
        rows, columns = np.nonzero(warm(before[number]))
        for places, axis, length in zip((rows, columns), axes, before[number].shape, strict=False):
            assert (places.mean() + 0.5) / length == pytest.approx((HOT[axis] + 0.5) / SHAPE[axis], abs=0.02)
        assert np.any(np.all(before[number] == OUTLINE, axis=-1))
    move(page, 0, 22)
    axial = pixels(page, f"{PLANE}[0]")
    assert not warm(axial).any()
    assert not np.any(np.all(axial == OUTLINE, axis=-1))
    assert page.run(f"{PLANE}[0].ariaLabel") == "axial, 23 of 24"
    assert (pixels(page, f"{PLANE}[1]") != before[1]).any()  # its line marks the other plane


def test_a_click_in_a_plane_moves_the_other_two(page: Chromium) -> None:
    x, y = page.place(f"{PLANE}[0]")  # the middle of the axial plane
    page.click(x, y)
    labels = page.run(f"[...{PLANE}].map((it) => it.ariaLabel)")
    assert labels == ["axial, 11 of 24", "coronal, 21 of 40", "sagittal, 33 of 64"]
    assert page.run(f"{SLIDERS}.slice(0, 3).map((it) => Number(it.value))") == [10, 20, 32]


def test_windows_reach_the_planes_and_the_rendering(page: Chromium) -> None:
    many = warm(fine(page)).sum(), warm(pixels(page, f"{PLANE}[0]")).sum()
    move(page, 3, 80)  # heat shown from
    page.until(f"{CANVAS}.dataset.drawn === 'coarse'")
    few = warm(fine(page)).sum(), warm(pixels(page, f"{PLANE}[0]")).sum()
    assert 0 < few[0] < many[0]
    assert 0 < few[1] < many[1]
    move(page, 4, 0)  # heat covers
    page.until(f"{CANVAS}.dataset.drawn === 'coarse'")
    assert not warm(fine(page)).any()
    dark = pixels(page, f"{PLANE}[0]").mean()
    move(page, 5, 200)  # brightness
    assert pixels(page, f"{PLANE}[0]").mean() > 1.3 * dark


def test_a_volume_without_position_and_heat_has_plain_axes(page: Chromium) -> None:
    page.click(*page.place("document.querySelectorAll('.open-scene')[1]"))
    page.until("document.querySelectorAll('.viewer').length === 2")
    second = "[...document.querySelectorAll('.viewer')[1].querySelectorAll('.plane canvas')]"
    assert page.run(f"{second}.map((it) => it.ariaLabel)") == [
        f"plane through axis {axis}, {length // 2 + 1} of {length}" for axis, length in enumerate(SHAPE)
    ]
    assert not warm(pixels(page, f"{second}[1]")).any()


def test_the_page_never_scrolls_sideways(page: Chromium) -> None:
    for width in (390, 820, 1280):
        page.look(width=width)
        root = "document.documentElement"
        assert page.run(f"{root}.scrollWidth") == page.run(f"{root}.clientWidth")
        used = "[...document.querySelectorAll('.viewer canvas, .viewer input')]"
        assert page.run(f"Math.max(...{used}.map((it) => it.getBoundingClientRect().right))") <= width
