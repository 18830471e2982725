"""The report says what the files say, survives what they lack, and lets nothing of them run or load."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from medray import UserError, registry
from medray.report.html import write_report

RunMaker = Callable[..., Path]
NAN = "–"
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    """Text of the cells of every table by its caption, all tags with their attributes, and whether tags balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self._cell: list[str] | None = None
        self._caption: list[str] | None = None
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []
        elif tag == "caption":
            self._caption, self._rows = [], []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag in ("td", "th") and self._cell is not None:
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag == "table":
            self.tables["".join(self._caption or [])] = self._rows

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        elif self._caption is not None and self.open and self.open[-1] == "caption":
            self._caption.append(data)

    def table(self, start: str) -> list[list[str]]:
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def read(run: Path) -> tuple[str, Page]:
    text = write_report(run).read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def finished(finished_run: Path) -> tuple[str, Page]:
    """The report of a complete run; written once."""
    return read(finished_run)


def two_variants(make_run: RunMaker, dice: tuple[list[float | None], list[float | None]]) -> Page:
    run = make_run("config", "result")
    variants = {
        name: {"rows": [{"case": f"p{i}", "dice_liver": v, "dice_spleen": v} for i, v in enumerate(values)]}
        for name, values in zip(("ours", "theirs"), dice, strict=True)
    }
    (run / "evaluation.json").write_text(json.dumps({"variants": variants}))
    return read(run)[1]


def test_whole_page_is_well_formed_and_every_section_is_there(finished: tuple[str, Page]) -> None:
    text, page = finished
    assert text.startswith("<!doctype html>")
    assert page.open == []
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identities)) == len(identities)
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert {"#results", "#curves", "#figures", "#data", "#settings", "#reproduce"} <= set(links)
    assert {link.removeprefix("#") for link in links if link} <= set(identities)


def test_nothing_is_fetched_and_only_the_own_script_may_run(finished: tuple[str, Page]) -> None:
    text, page = finished
    sources = [a.get("src") or "" for _, a in page.tags if "src" in a]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_small_and_the_same_bytes_twice(finished_run: Path) -> None:
    first = write_report(finished_run).read_bytes()
    assert write_report(finished_run).read_bytes() == first
    pictures = sum(path.stat().st_size for path in (finished_run / "figures").glob("*.png"))
    assert len(first) - 1.4 * pictures < 200_000
    assert not list(finished_run.glob("*.part"))


def test_long_run_stays_small(make_run: RunMaker) -> None:
    run = make_run("config", "result")
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(4_000):
            values = {f"metric{k}_a": step * 0.123456789 + k for k in range(20)}
            file.write(json.dumps({"name": "train", "step": step, **values}) + "\n")
    rows = [{"case": f"case-{i}", **{f"m{k}": i + k / 7 for k in range(20)}} for i in range(2500)]
    (run / "evaluation.json").write_text(json.dumps({"variants": {"cnn": {"rows": rows, "summary": {}}}}))
    text, page = read(run)
    assert len(text) < 1_500_000
    assert "more rows are in evaluation.json" in text
    assert "each point is the mean of" in text
    assert len(page.table("Metrics of every test case")) < 2_000


def test_header_names_the_run(finished: tuple[str, Page]) -> None:
    text, _ = finished
    for part in ("nowhere", "finished", "smoke", "2025-06-01 12:00:00", "3 min 12 s", "23.4 samples/s"):
        assert part in text
    assert "python jobs/nowhere.py train --preset smoke --seed 3" in text
    assert "sha256:5f0c2a" in text


def test_hostile_text_stays_text(make_run: RunMaker) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    run = make_run("config", "figures", "result", system=evil, command=f'python "{evil}"', config={evil: evil})
    row = {"case": evil, f"dice_{evil}": 0.5, "dice": 0.5, "note": evil}
    (run / "evaluation.json").write_text(json.dumps({"variants": {evil: {"rows": [row, row], "summary": {}}}}))
    (run / "metrics.jsonl").write_text(json.dumps({"name": evil, "step": 1, f"loss {evil}": 1.0}) + "\n")
    figures = [{"name": evil, "caption": evil, "file": "best.png"}]
    (run / "figures" / "figures.json").write_text(json.dumps(figures))
    text, page = read(run)
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("img") == 2  # the figure and the empty lightbox
    assert "<img src=x" not in text
    assert not [name for _, attributes in page.tags for name in attributes if name == "onerror"]
    assert page.table("Metrics of every test case")[1][0] == evil


def test_script_in_a_case_id_is_shown_not_run(finished: tuple[str, Page]) -> None:
    text, page = finished
    assert "<script>alert" not in text
    assert page.table("Cases that could not be used")[1] == [
        "<script>alert(1)</script>",
        "holds 12 NaN voxels & more",
        "ct/x.nii.gz",
    ]


def test_figure_outside_the_run_is_not_embedded(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run("config", "figures", "result")
    secret = tmp_path / "secret.png"
    secret.write_bytes((run / "figures" / "best.png").read_bytes())
    listed = [{"name": "a", "caption": "", "file": "../../../secret.png"}, {"name": "gone", "file": "gone.png"}]
    (run / "figures" / "figures.json").write_text(json.dumps(listed))
    text, page = read(run)
    assert "data:image" not in text
    assert text.count("is no picture in this run’s figures folder") + text.count("in this run&#39;s figures") == 2
    assert page.open == []


def test_organ_table_has_every_variant_and_marks_the_best(finished: tuple[str, Page]) -> None:
    _, page = finished
    rows = page.table("Dice:")
    assert rows[0][:2] == ["variant", "n"]
    assert [heading.split(" ")[0] for heading in rows[0][2:]] == ["overall", "liver", "spleen", "left", "right"]
    assert [row[0].split(" ")[0].removesuffix("before").removesuffix("reference") for row in rows[1:]] == [
        "initial",
        "cnn",
        "mind",
        "intensity",
        "elastix",
    ]
    cnn, mind = rows[2], rows[3]
    assert all("★" in cell for cell in cnn[2:])
    assert not any("★" in cell for cell in mind)
    assert "(n = 8)" in cnn[4]  # one patient has no spleen
    assert all("▼" in cell for cell in mind[2:])


def test_difference_is_paired_by_case_and_worked_by_hand(make_run: RunMaker) -> None:
    page = two_variants(make_run, ([0.5, 0.7, 0.9, 0.8], [0.4, 0.6, 0.8, 0.7]))
    ours, theirs = page.table("Dice:")[1:]
    # Means 0.725 and 0.625; differences all -0.1 although the cases spread over 0.4. sd of 4 cases: 0.1708.
    assert ours[2] == "0.725★ ± 0.171"
    assert theirs[2].startswith("0.625 ± 0.171 ▼ −0.100 [−0.100, −0.100]")


def test_cases_are_matched_by_id_not_by_order(make_run: RunMaker) -> None:
    run = make_run("config", "result")
    ours = [{"case": "a", "epe_px": 1.0}, {"case": "b", "epe_px": 3.0}, {"case": "c", "epe_px": 2.0}]
    theirs = [{"case": "c", "epe_px": 1.5}, {"case": "a", "epe_px": 0.5}, {"case": "b", "epe_px": 2.5}]
    body = {"ours": {"rows": ours, "summary": {}}, "theirs": {"rows": theirs, "summary": {}}}
    (run / "evaluation.json").write_text(json.dumps({"variants": body}))
    rows = read(run)[1].table("Measures:")
    assert "▲ −0.50 [−0.50, −0.50]" in rows[2][2]  # a lower end-point error is better


def test_different_cases_give_no_difference_and_two_no_interval(make_run: RunMaker) -> None:
    page = two_variants(make_run, ([0.5, 0.7], [0.4, 0.5]))
    assert "−0.150" in page.table("Dice:")[2][2]
    assert "[" not in page.table("Dice:")[2][2]
    run = make_run("config", "result")
    body = {name: {"rows": [{"case": name, "dice": 0.5}, {"case": name + "2", "dice": 0.6}]} for name in ("x", "y")}
    (run / "evaluation.json").write_text(json.dumps({"variants": body}))
    assert read(run)[1].table("Measures:")[2][2] == "0.550 ± 0.071"


def test_nan_and_null_are_dashes(make_run: RunMaker) -> None:
    page = two_variants(make_run, ([0.5, float("nan"), 0.7], [None, None, None]))
    ours, theirs = page.table("Dice:")[1:]
    assert ours[1:3] == ["2", "0.600 ± 0.141"]
    assert theirs[1:3] == [NAN, NAN]
    cases = page.table("Metrics of every test case")
    assert cases[2][2] == NAN
    assert cases[4][2] == NAN
    assert "nan" not in " ".join(cell.lower() for row in cases[1:] for cell in row)


def test_summary_wins_over_the_mean_of_rows(make_run: RunMaker) -> None:
    run = make_run("config", "result")
    body = {"rows": [{"case": "a", "dice": 0.2}, {"case": "b", "dice": 0.4}], "summary": {"dice": 0.39}}
    (run / "evaluation.json").write_text(json.dumps({"variants": {"only": body}}))
    assert read(run)[1].table("Measures:")[1][2].startswith("0.390 ±")


def test_differences_from_the_paper_are_marked(finished: tuple[str, Page]) -> None:
    text, page = finished
    rows = page.table("The configuration")
    assert rows[2] == ["grid_spacing differs", "12, 8, 5", "20, 10, 7"]
    assert [row[0] for row in rows[1:] if row[0].endswith("differs")] == ["grid_spacing differs"]
    assert ["optimizer.lr", "0.001", "0.001"] in rows
    assert "1 of 4 fields differ" in text


def test_defaults_come_from_the_system_when_the_run_has_none(
    make_run: RunMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        grid_spacing: tuple[int, ...] = (20, 10, 7)
        features: str = "cnn"

    class Stand:
        config_class = Config

    monkeypatch.setattr(registry, "load", lambda slug: Stand)
    run = make_run("config", "result", defaults={}, config={"grid_spacing": [20, 10, 7], "features": "mind", "new": 1})
    rows = read(run)[1].table("The configuration")
    assert rows[1:] == [
        ["grid_spacing", "20, 10, 7", "20, 10, 7"],
        ["features differs", "mind", "cnn"],
        ["new", "1", NAN],
    ]


def test_unknown_system_has_no_marks_and_says_so(make_run: RunMaker) -> None:
    text, _ = read(make_run("config", "result", defaults={}))
    assert "defaults for this system are not known" in text


def test_claim_shows_checks_and_raw_values(make_run: RunMaker) -> None:
    text, page = read(make_run("config", "claim", "result"))
    assert "claim does not hold" in text
    assert "1 of 2 parts of the claim hold." in text
    rows = page.table("Each part of the claim")
    assert rows[1][1:4] == ["0.0712", "0.0550 to 0.0880", "0.0300"]
    assert [row[-1] for row in rows[1:]] == ["held", "not held"]
    assert len(page.table("Every raw value")) == 1 + 4 * 3 * 3
    assert "Three seeds, nine pairs each." in text
    assert "has not been evaluated" not in text


def test_claim_without_checks_does_not_hold(make_run: RunMaker) -> None:
    run = make_run("config")
    (run / "claim.json").write_text(json.dumps({"checks": [], "rows": []}))
    assert "claim does not hold" in read(run)[0]


def test_crashed_run_says_how_far_it_came(make_run: RunMaker) -> None:
    run = make_run("config", "log")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"name": "train", "step": 30')  # killed while writing
    text, page = read(run)
    assert page.open == []
    for part in ("not finished", "epoch 10, step 123301", "1 of 311 lines of metrics.jsonl are broken", "saved none"):
        assert part in text
    assert "No test results" in text
    assert text.count("data-chart=") == 3


def test_empty_folder_still_gives_a_report(make_run: RunMaker) -> None:
    text, page = read(make_run())
    assert page.open == []
    for part in ("config.json is missing", "It logged nothing.", "No test results", "No curves", "No figures"):
        assert part in text


@pytest.mark.parametrize("content", ["{", "[1, 2]", "null", '{"variants": 3}', '{"variants": {"a": {"rows": "x"}}}'])
def test_broken_files_are_named_not_fatal(make_run: RunMaker, content: str) -> None:
    run = make_run("log", "figures")
    for name in ("config.json", "evaluation.json", "claim.json", "result.json", "figures/figures.json"):
        (run / name).write_text(content)
    text, page = read(run)
    assert page.open == []
    if content == "{":
        assert "evaluation.json cannot be read" in text


def test_evaluation_only_run_is_not_called_a_crash(make_run: RunMaker) -> None:
    text, _ = read(make_run("config", "evaluation", "result"))
    assert "not finished" not in text
    assert "this run logged no training" in text


def test_missing_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a run directory"):
        write_report(tmp_path / "nowhere")
