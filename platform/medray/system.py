"""The contract of a published system: what it is, how it is trained, judged and used.

A system is one file under `medray/systems/<task>/`. It never imports Ray: training as one gradient loop, as a chain of
stages, as folds or federated sites side by side, or without any gradient at all is written in plain Python against the
`Workbench` that the engine hands in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from medray.data.cache import SampleCache
from medray.data.case import BadCase, Case, Source, Splits
from medray.data.fields import Kind
from medray.figures.scene import Scene
from medray.learner import Learner
from medray.policy import PolicyProblem

ConfigT = TypeVar("ConfigT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Row = dict[str, str | float | int | bool]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A size of run: where the data comes from and which fields of the config differ from the paper's.

    Attributes:
        about: one line with the expected duration, for `--help`.
        data: default data source.
        config: config fields that differ.
        compare: variants evaluated on the same test cases, for the report's table.
        seeds: how many seeds the claim runs.
    """

    about: str
    data: str
    config: Mapping[str, Any] = field(default_factory=dict)
    compare: tuple[str, ...] = ()
    seeds: int = 3


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A baseline, ablation or departure by name: the same system with other config fields."""

    about: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """What one gradient loop gave.

    Attributes:
        weights: safetensors file of the best (or last) networks, None when there was nothing to learn.
        metrics: last training and validation means, by name.
        num_steps: updates in all, over every restart.
        seconds: wall time spent in this process's part of it.
        samples_per_second: training samples over that time, start-up left out.
    """

    weights: Path | None
    metrics: Mapping[str, float]
    num_steps: int
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class Figure:
    """A picture for the report: PNG bytes under a caption.

    Attributes:
        name: of its file, without suffix; different for every picture of a run.
        caption: what is to be seen.
        png: content of the PNG file.
        scene: a volume that the reader may turn and page through in the report, behind the picture.
    """

    name: str
    caption: str
    png: bytes
    scene: Scene | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on test cases.

    Attributes:
        rows: one per case (or pair), with its id under "case" and numbers under names that carry their unit.
        summary: aggregated over all rows by sums and counts, never a mean of means.
        figures: examples worth looking at.
    """

    rows: Sequence[Row]
    summary: Mapping[str, float]
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class ClaimCheck:
    """One inequality of the paper's claim, with the numbers that decide it."""

    name: str
    statement: str
    value: float
    threshold: float
    interval: tuple[float, float]
    held: bool


@dataclass(frozen=True)
class ClaimResult:
    """What `claim` writes: every raw value, the paired differences and whether each part held."""

    checks: Sequence[ClaimCheck]
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    @property
    def held(self) -> bool:
        """True only if every part held."""
        return bool(self.checks) and all(check.held for check in self.checks)


Hosting = Literal["process", "workers", "books"]
"""What a member of a team needs: a process with its cores (and GPU), where its loops run; as many training workers as
the run has, for its loops; or next to nothing, since it only keeps books."""


class Team(Protocol):
    """Objects that live as long as the run's stage and keep data of their own: the sites of a federated run."""

    def call(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Call a method of the named members, side by side where there are workers.

        Args:
            method: name of a method.
            arguments: member -> arguments of its call. Who is not named is not called.

        Returns:
            member -> result. A member that went away (its process or node was lost) is left out; it is made anew and
            can be called again once it is back. In a team that is ``patient`` its call is repeated instead until it is
            answered, so its methods must bear that. What a member raises is raised here.

        Raises:
            UserError: a member of a patient team cannot be made anew.
        """


class Workbench(Protocol):
    """What a system may ask of the run it belongs to. The engine implements it on Ray and in one process."""

    out: Path
    """The run directory."""
    seed: int
    """Of what is trained next; the run's until a system sets another, as a claim does for each of its seeds."""

    @property
    def place(self) -> str:
        """Where ``out`` lasts: its own path, or its ``s3://`` url. For `medray.storage.ledger` and files of others."""

    @property
    def cache(self) -> SampleCache:
        """Where learners keep what they decode and resample; hand it to them, it travels to every worker."""

    def fit(self, make_learner: Callable[[], Learner], *, name: str = "train") -> FitResult:
        """Train to the end of the learner's schedule, resuming where an earlier try of this run stopped.

        ``make_learner`` is picklable and is called once per worker. Stages of a chain have different names.
        """

    def reinforce(self, problem: PolicyProblem, *, name: str = "train") -> FitResult:
        """Learn a policy by reinforcement (PPO) to the end of its settings, resuming as `fit` does.

        The file of weights has the prefixes ``actor.`` and ``critic.``; ``num_steps`` counts rounds and
        ``samples_per_second`` environment steps.
        """

    def forget(self, name: str) -> None:
        """Drop the checkpoints of a finished loop whose result is kept elsewhere, as of an earlier federated round."""

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, name: str) -> list[ResultT]:
        """``[function(item) for item in items]``, side by side where there are workers: folds, sites, test cases."""

    def map_runs(
        self, function: Callable[[Workbench, ItemT], ResultT], items: Iterable[ItemT], *, name: str
    ) -> list[ResultT]:
        """Like `map`, for functions that train: each gets a workbench of its own, in one process, under ``out/name/``.

        Folds, ensemble members, federated sites and the seeds of a claim run side by side this way.
        """

    def stage(self, name: str, make: Callable[[Path], None]) -> Path:
        """A piece of work that a resumed run does not do again: a federated round, the features of a data set.

        Args:
            name: of the folder ``out/stages/name``; different for every piece.
            make: fills the empty folder it is given. What it leaves counts once it returns.

        Returns:
            the folder, whether it was filled now or before the run was interrupted.
        """

    def team(
        self,
        make_member: Callable[[Workbench, ItemT], Any],
        items: Mapping[str, ItemT],
        *,
        name: str,
        hosting: Hosting = "process",
        patient: bool = False,
    ) -> AbstractContextManager[Team]:
        """Members that stay: ``make_member(workbench, item)`` for each, an actor of its own where there is Ray.

        Each has a workbench of its own under ``out/name/<member>/``. Members end with the context.

        Args:
            make_member: makes a member, also anew after it was lost.
            items: what each is made of, by member.
            name: of the folder.
            hosting: what the members need.
            patient: whether calls to a lost member are repeated, or left out of the result.
        """

    def log(self, metrics: Mapping[str, float], *, name: str) -> None:
        """Append a line to the run's metrics.jsonl."""

    def say(self, message: str) -> None:
        """One line of progress for the person watching."""


@dataclass(frozen=True)
class Trained:
    """What training leaves for `evaluate` and `predict`, and what a checkpoint holds besides the config.

    Attributes:
        weights: safetensors file, or None for a method with nothing to learn.
        files: further files of the model by name, each with a suffix that says what it is: boosted trees as JSON, the
            weights of a second stage. Never a pickle.
        about: plain values a prediction needs (label names, normalization, input kinds); saved as JSON.
        metrics: what training itself measured.
        fits: the gradient loops it ran, by name.
        figures: pictures of how it was trained, for the run's report; a checkpoint does not hold them.
    """

    weights: Path | None
    about: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    fits: Mapping[str, FitResult] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class PredictRequest:
    """A prediction the user asked for.

    Attributes:
        inputs: files or folders, in the order the system documents; those it can do without come last or not at all.
        labels: label maps to carry along, for systems that can; may be empty.
        out: where the main result goes; by-products are named after it.
        options: the system's own switches, as text.
    """

    inputs: Sequence[Path]
    out: Path
    labels: Sequence[Path] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """Files written, what was measured, and how long the method itself took."""

    files: Mapping[str, Path]
    metrics: Mapping[str, float]
    seconds: float


class System(ABC, Generic[ConfigT]):
    """A published system. Subclasses set the class variables and implement the five verbs."""

    slug: ClassVar[str]
    config_class: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Preset]]
    variants: ClassVar[Mapping[str, Variant]]
    predict_inputs: ClassVar[tuple[str, ...]]
    """Names of the files `predict` takes, in order; see `input_names`."""
    optional_inputs: ClassVar[tuple[str, ...]] = ()
    """Names of further files it takes after those, each only where the user has it."""
    predict_suffix: ClassVar[str] = ".nii.gz"
    """Suffix of the main result, ``--out``, that suits it; others that can hold it may work too."""
    magnification: ClassVar[int] = 1
    """Pixels of the result for one of the input, along both axes of a slice, over the same field of view."""
    learning_signal: ClassVar[tuple[str, Literal["max", "min"]] | None] = ("loss", "min")
    """The training metric that shows whether it learns, and the direction; held by a test on the smoke preset. None for
    a method without a gradient loop."""
    field_kinds: ClassVar[Mapping[str, Kind]] = {}
    """How fields of a user's folder or manifest are read where their name does not tell: ``{"psf": "array"}``."""

    short_flags: ClassVar[tuple[str, ...]] = ()
    """Fields of the config that can be given without their prefix: ``--budget 50`` for ``--config.budget 50``."""

    empty_labels: ClassVar[bool] = False
    """Whether a label map without any object is a case like others (healthy patients) and not a mistake."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def required_fields(self, cases: Sequence[Case], *, training: bool) -> tuple[str, ...]:
        """Fields every case must have: those to train on, or those to be scored."""

    def arrange(self, cases: Sequence[Case]) -> Sequence[Case]:
        """What the source found, regrouped into what this system takes as one case; as it is unless overridden.

        Called before anything is read. See `medray.data.channels.by_patient` for the modalities of a patient.

        Raises:
            UserError: the cases cannot be grouped (a modality that nobody has).
        """
        return cases

    def input_names(self, known: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of the files `predict` takes with this model, in order; `predict_inputs` unless overridden.

        Args:
            known: ``Trained.about`` of the model.
        """
        return self.predict_inputs

    def expected_dims(self) -> int | None:
        """2 or 3 where every image must have that many spatial axes; None where both will do."""
        return None

    def problems(self, cases: Sequence[Case], known: Mapping[str, Any]) -> Sequence[BadCase]:
        """Readable cases that this system cannot use all the same, each with the sentence that says why.

        Args:
            cases: cases that passed the general checks.
            known: ``Trained.about`` of the model they are meant for; empty before training.
        """
        return ()

    @abstractmethod
    def split(self, source: Source, seed: int) -> Splits:
        """Who trains and who tests; by patient.

        Raises:
            UserError: the cases cannot serve this system (no common label, too few patients).
        """

    @abstractmethod
    def train(self, work: Workbench, splits: Splits) -> Trained:
        """Learn what there is to learn."""

    @abstractmethod
    def evaluate(self, work: Workbench, trained: Trained, cases: Sequence[Case]) -> Evaluation:
        """Score the trained system on cases it has not seen."""

    def alone(self) -> str:
        """Why no variant is trained beside it, whatever the preset compares with; empty where one may be."""
        return ""

    def overview(self, found: Mapping[str, tuple[Trained, Evaluation]]) -> Sequence[Figure]:
        """Pictures that show what was compared in one frame; none unless overridden.

        Args:
            found: variant -> its model and scores, this system's own first.
        """
        return ()

    @abstractmethod
    def predict(self, trained: Trained, request: PredictRequest) -> Prediction:
        """Use the trained system on new scans and write the results.

        Raises:
            UserError: an input cannot be used, in one sentence.
        """

    @classmethod
    def claim_setting(cls, preset: str) -> tuple[ConfigT, str]:
        """Config and data source that `claim` runs with, for the record; its variants and seeds differ from it.

        Raises:
            UserError: the claim has no such preset.
        """
        return cls.config_class(**cls.presets[preset].config), cls.presets[preset].data

    @classmethod
    @abstractmethod
    def claim(cls, work: Workbench, preset: str) -> ClaimResult:
        """Run the paper's central claim over variants and seeds."""
