"""People label through files while the real job runs, is killed, is stopped and goes on."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotating import Annotator
from clusters import local_ray
from numpy.typing import NDArray
from toy_campaigns import points, simulated, toy_campaign

from medray import cli
from medray.active.answers import Answer
from medray.active.lead import run_campaign
from medray.active.oracle import Oracle, Query, Returned
from medray.data.case import Volume
from medray.data.sources import open_source
from medray.data.writers import write_volume
from medray.engine.models import config_from_plain
from medray.engine.options import RunOptions
from medray.engine.ray_train import RayWorkbench
from medray.engine.rundir import read_json_lines
from medray.systems.active_learning.mvaal_config import MvaalConfig

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--num-workers=0", "--config.oracle=human", "--rounds=2", "--budget=4", "--config.task-size=32",
    "--config.sampler-epochs=1", "--config.task-epochs=1", "--config.channels", "4", "8",
)  # fmt: skip
LABELLED, OPEN = 10, 12
_PATIENCE_S = 120.0


class Job:
    """The job in a process of its own, which is killed at the latest when the test ends.

    Attributes:
        said: all that its processes have written to standard error so far.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out, self._log = folder / "runs", folder / "said.txt"
        self.start("--out", str(self._out), *arguments)

    def start(self, *arguments: str) -> None:
        command = [sys.executable, str(ROOT / "jobs" / "mvaal.py"), "train", *arguments]
        with self._log.open("a") as log:
            self._from = log.tell()
            self.process = subprocess.Popen(
                command, cwd=self._log.parent, stderr=log, stdout=log, stdin=subprocess.DEVNULL
            )

    def resume(self) -> None:
        self.start("--resume", str(self.run))

    @property
    def run(self) -> Path:
        (run,) = self._out.glob("mvaal/*")
        return run

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def said_now(self) -> str:
        """By this process alone."""
        return self.said[self._from :]

    def until(self, text: str) -> None:
        """Wait until this process has said it."""
        self._wait(lambda: text in self.said_now, text)

    def until_problems(self, number: int) -> None:
        self._wait(lambda: len(self.problems()) == number, f"{number} problems")

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        return self.process.wait(_PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def pool(self) -> list[dict[str, str]]:
        return self._table("pool.csv")

    def problems(self) -> list[dict[str, str]]:
        return self._table("problems.csv")

    def num_labelled(self) -> list[int]:
        """By round."""
        records = read_json_lines(self.run / "metrics.jsonl")
        return [record["num_labelled"] for record in records if record["name"] == "rounds"]

    def _table(self, name: str) -> list[dict[str, str]]:
        path = self.run / name
        return list(csv.DictReader(path.open(newline=""))) if path.exists() else []

    def _wait(self, met: Any, what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not met():
            assert self.process.poll() is None, f"ended before {what!r}: {self.said}"
            assert time.monotonic() < deadline, f"no {what!r}: {self.said}"
            time.sleep(0.05)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Any]:
    """Starts the job, in the folder of the test."""
    # Where the tests run in the background of a shell, interrupts are ignored from the start, in children too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started: list[Job] = []

    def start(*arguments: str) -> Job:
        started.append(Job(tmp_path, *arguments))
        return started[-1]

    try:
        yield start
    finally:
        signal.signal(signal.SIGINT, before)
        for job in started:
            job.close()


def patients(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Write images of two modalities, and masks for the first patients. Returns all masks, as one draws them."""
    masks = {}
    source = open_source(f"phantom:brain_multimodal?n={LABELLED + OPEN}&validation=0&test=0&size=32")
    for number, case in enumerate(source.cases):
        for name in ("image", "auxiliary"):
            array = case.volume(name).array
            _save(folder / name / f"{case.id}.png", 255 * array / array.max())
        mask = (case.volume("label").array > 0).astype(np.uint8)
        masks[case.id] = mask[0]
        if number < LABELLED:
            _save(folder / "label" / f"{case.id}.png", mask)
    return masks


def _save(path: Path, array: NDArray[Any]) -> None:
    write_volume(Volume(array.astype(np.uint8), np.eye(4)), path)


def names(rows: Sequence[dict[str, str]], state: str) -> set[str]:
    return {row["case"] for row in rows if row["state"] == state and row["round"]}


def test_people_label_while_the_job_comes_and_goes(tmp_path: Path, jobs: Any) -> None:
    masks = patients(tmp_path / "data")
    data = f"{tmp_path / 'data'}?image=image&auxiliary=auxiliary&label=label"
    job = jobs("--data", data, *TINY)

    job.until("round 0: waiting for 4 of 4 labels; see ")
    page = re.findall(r"; see (\S+)", job.said)[-1]
    assert Path(page).is_file()
    people = Annotator(Path(page).parents[1])
    first, second, third, fourth = (row["case"] for row in people.rows())
    open_cases = [name for name in list(masks)[LABELLED:] if name not in (first, second, third, fourth)]

    people.draw(first, masks[first])
    people.draw(second, masks[second])
    job.until("round 0: waiting for 2 of 4 labels")
    people.draw(first, 255 * masks[first], suffix=".tif")
    people.draw(open_cases[0], masks[open_cases[0]])
    people.save(f"labels/{third}.png", people.draw(third, masks[third]).read_bytes()[:60])
    people.draw(fourth, np.ones((32, 31)))
    job.until_problems(3)

    assert job.stop(signal.SIGKILL) == -signal.SIGKILL
    people.draw(third, masks[third])
    job.resume()
    job.until("round 0: waiting for 1 of 4 labels")
    people.fill({fourth: {"status": "cannot label", "note": "motion"}})

    job.until("round 1: waiting for ")
    assert job.stop(signal.SIGINT) == 130
    assert job.said.splitlines()[-1].endswith(f"mvaal.py train --resume {job.run}")
    job.resume()
    job.until("round 1: waiting for ")
    later = Annotator(people.folder, 1)
    asked = [row["case"] for row in later.rows()]
    for name in asked:
        later.draw(name, masks[name])
    assert job.end() == 0, job.said

    pool, known = job.pool(), len([row for row in job.pool() if not row["round"]])
    assert names(pool, "labelled") == {first, second, third, *asked}
    assert names(pool, "rejected") == {fourth}
    assert [row["note"] for row in pool if row["case"] == fourth] == ["motion"]
    assert len(pool) == known + 8
    assert job.num_labelled() == [known, known + 3, known + 7]
    problems = {row["case"] or row["subject"]: row["reason"] for row in job.problems()}
    assert len(job.problems()) == 3
    assert "was not asked for" in problems[f"round-000/labels/{open_cases[0]}.png"]
    assert {third, fourth} < set(problems)
    assert [job.said.count(f"not used: {row['subject']}: ") for row in job.problems()] == [1, 1, 1]
    assert (job.run / "report.html").is_file()
    ledger = [json.loads(path.read_text()) for path in sorted(job.run.rglob("ledger/*.json"))]
    answered = [answer["case"] for record in ledger for answer in record.get("answers", [])]
    assert sorted(answered) == sorted([first, second, third, fourth, *asked])


def test_classes_come_back_as_excel_saves_them(tmp_path: Path, jobs: Any) -> None:
    classes = films(tmp_path / "data")
    manifest = str(tmp_path / "data" / "manifest.csv")
    job = jobs("--data", manifest, "--task=multi_class", "--config.task-network=small", *TINY, "--rounds=1")

    job.until("round 0: waiting for 4 of 4 labels; see ")
    assert job.stop(signal.SIGTERM) == 130
    assert job.said.splitlines()[-1].endswith(f"mvaal.py train --resume {job.run}")
    job.resume()
    people = Annotator(job.run / "annotation")
    asked = [row["case"] for row in people.rows()]
    said = {name: classes[name].upper() for name in asked} | {asked[0]: "larg"}
    people.save("worklist.csv", excel(said))
    job.until("round 0: waiting for 1 of 4 labels")
    people.save("second look.csv", excel({asked[0]: classes[asked[0]]}))
    assert job.end() == 0, job.said

    given = {row["case"]: row["value"] for row in job.pool() if row["round"]}
    assert given == {name: classes[name] for name in asked}
    assert len(job.problems()) == 1
    assert "'larg'" in job.problems()[0]["reason"]
    first, last = job.num_labelled()
    assert last == first + 4


def films(folder: Path) -> dict[str, str]:
    """Write a manifest that names the class of the first cases. Returns all classes."""
    source = open_source(f"phantom:brain_multimodal?n={LABELLED + OPEN}&validation=0&test=0&size=32")
    classes, rows = {}, ["case,patient,image,auxiliary,class"]
    for number, case in enumerate(source.cases):
        for name in ("image", "auxiliary"):
            array = case.volume(name).array
            _save(folder / f"{case.id}_{name}.png", 255 * array / array.max())
        classes[case.id] = "large" if (case.volume("label").array > 0).sum() > 55 else "small"
        known = classes[case.id] if number < LABELLED else ""
        rows.append(f"{case.id},{case.patient},{case.id}_image.png,{case.id}_auxiliary.png,{known}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return classes


def excel(said: Mapping[str, str]) -> bytes:
    """A table as a spreadsheet of much of Europe saves it."""
    rows = "".join(f"{name};{label};\r\n" for name, label in said.items())
    return f"case;label;Bemerkung für später\r\n{rows}".encode("cp1252")


class SeesCores(Oracle):
    """Answers at the third look, and writes down how many cores were free at each."""

    where = "the desk"

    def __init__(self, book: Path) -> None:
        self._book = book
        self._simulated = simulated(points(60))

    def ask(self, query: Query) -> None:
        self._simulated.ask(query)

    def collect(self, asked: Sequence[Query], known: Mapping[str, Answer]) -> Returned:
        import ray

        with self._book.open("a") as book:
            book.write(f"{len(asked)} {ray.available_resources().get('CPU', 0):g}\n")
        looks = [line.split()[0] for line in self._book.read_text().splitlines()]
        return self._simulated.collect(asked, known) if looks.count(str(len(asked))) == 3 else Returned()


@pytest.mark.ray
def test_cores_are_free_while_people_label(tmp_path: Path) -> None:
    campaign = toy_campaign(rounds=1, make_oracle=partial(SeesCores, tmp_path / "book"))
    options = RunOptions(data="", num_workers=1)
    with local_ray(2):
        result = run_campaign(RayWorkbench(tmp_path / "run", options), campaign)
    assert [record.num_labelled for record in result.records] == [6, 11]
    looks = (tmp_path / "book").read_text().splitlines()
    assert looks == ["1 0", "1 2", "1 2"]


def test_a_folder_of_another_campaign_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients(tmp_path / "data")
    (tmp_path / "shared" / "round-000").mkdir(parents=True)
    (tmp_path / "shared" / "round-000" / "query.json").write_text('{"cases": ["one", "another"]}')
    assert refused(tmp_path, capsys, "--config.annotation", str(tmp_path / "shared")) == [
        f"error: {tmp_path}/shared/round-000/query.json asks for other cases than this campaign does; give each "
        "campaign an annotation folder of its own"
    ]


def test_a_run_resumed_from_elsewhere_has_the_same_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    saved = [asdict(MvaalConfig(annotation=place)) for place in ("desk", "~/desk", "s3://bucket/desk", "")]
    monkeypatch.chdir("/")
    found = [config_from_plain(MvaalConfig, plain).annotation for plain in saved]
    assert found == [f"{tmp_path}/desk", f"{tmp_path}/home/desk", "s3://bucket/desk", ""]


def test_some_must_be_labelled_from_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patients(tmp_path / "data")
    (said,) = refused(tmp_path, capsys, data="image=image&auxiliary=auxiliary")
    assert said.startswith("error: no case has a label map; some must be labelled from the start")
    for number in range(1, LABELLED):
        (tmp_path / "data" / "label" / f"train{number:05d}.png").unlink()
    (said,) = refused(tmp_path, capsys)
    assert said.startswith("error: 1 of 22 patients has a label")


def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, data: str = "image=image&label=label"
) -> list[str]:
    """Run the job in this process. Returns its errors."""
    given = ["--data", f"{tmp_path / 'data'}?{data}", "--out", str(tmp_path / "runs"), "--sampler=random", *TINY]
    assert cli.run("mvaal", ["train", *given, *more]) == 2
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
