"""What a metric's name says: its family, its label, its unit and which way is better.

``dice_left_kidney`` is the member "left kidney" of the family "Dice"; ``hd95_liver_mm`` is "liver" of "HD95" in mm.
Names are all a report has to go by, and they follow one rule: words joined by underscores, the unit among them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", ""]
NO_VALUE = "–"
OVERALL = "overall"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Units that no other word of a metric's name can be mistaken for; the short ones count only at the end of a name.
_UNITS = {
    "px": "px",
    "mm": "mm",
    "cm": "cm",
    "um": "µm",
    "percent": "%",
    "hu": "HU",
    "db": "dB",
    "mm2": "mm²",
    "mm3": "mm³",
}
_LAST_UNITS = {
    "s": "s",
    "seconds": "s",
    "ms": "ms",
    "ml": "ml",
    "deg": "°",
    "gib": "GiB",
    "mib": "MiB",
    "years": "years",
}
_SPELLING = {
    "dice": "Dice",
    "iou": "IoU",
    "lr": "learning rate",
    "map": "mAP",
    "kappa": "κ",
    "cpu": "CPU",
    "gpu": "GPU",
    **{
        word: word.upper()
        for word in _words(
            "hd hd95 epe tre assd asd mae mse rmse nmse ssim psnr auc auroc auprc ap f1 fid kid kl ece nll "
            "icc ncc nmi ppv npv fpr fnr lpips niqe vif r2 ct mr t1 t2"
        )
    },
}
_HIGHER = _words(
    "dice iou jaccard accuracy acc auc auroc auprc ap map f1 sensitivity specificity precision recall ppv npv psnr "
    "ssim vif kappa correlation pearson spearman r2 ncc nmi icc reward return throughput purity ari samples"
)
_LOWER = _words(
    "loss error err epe tre hd hd95 hausdorff assd asd masd mae mse rmse nmse nrmse lpips niqe fid kid ece brier nll "
    "perplexity folded folding distance landmark fpr fnr seconds kl"
)
_WHOLE = frozenset({OVERALL, "mean", "average", "all", "total"})
# First words that say how a number was made, not what it measures: sharing one makes no family.
_NO_FAMILY = _words("num mean median max min std total sum samples train validation test best last")


@dataclass(frozen=True)
class Measure:
    """A metric's name, taken apart.

    Attributes:
        key: the name as it stands in the files.
        words: the name's words without the unit.
        unit: as printed, for example "mm" or "%"; empty for ratios and counts.
        better: which direction is an improvement, empty when the name does not tell.
    """

    key: str
    words: tuple[str, ...]
    unit: str
    better: Direction

    @property
    def label(self) -> str:
        """The name for people, without the unit."""
        return spell(self.words)


@dataclass(frozen=True)
class Family:
    """Metrics of one kind and unit, such as the Dice of every organ. A single metric is a family of one.

    Attributes:
        label: what they have in common.
        members: label and measure of each; what stands for all of them (``dice``, ``dice_mean``) comes first.
    """

    label: str
    unit: str
    members: Sequence[tuple[str, Measure]]

    @property
    def better(self) -> Direction:
        """Which direction is an improvement, for all members."""
        return self.members[0][1].better

    @property
    def whole(self) -> Measure | None:
        """The metric that stands for all members: the only one, or their overall value; None when there is none."""
        label, measure = self.members[0]
        return measure if len(self.members) == 1 or label in _WHOLE else None


def spell(words: Sequence[str]) -> str:
    """Words of a metric's name as a label: abbreviations in capitals, the first letter of the whole too.

    >>> spell(("hd95", "left", "kidney"))
    'HD95 left kidney'
    """
    text = " ".join(_SPELLING.get(word.lower(), word) for word in words)
    return text if text[:1].isupper() or text[1:2].isupper() else text[:1].upper() + text[1:]


def parse(key: str) -> Measure:
    """Take a metric's name apart.

    >>> parse("hd95_liver_mm").unit
    'mm'
    """
    words = [word for word in key.split("_") if word] or [key]
    unit = ""
    for index in range(len(words) - 1, -1, -1):
        name = words[index].lower()
        symbol = _UNITS.get(name) or (_LAST_UNITS.get(name) if index == len(words) - 1 else None)
        if symbol:
            unit = symbol
            if len(words) > 1:
                del words[index]
            break
    names = {word.lower() for word in key.split("_")}
    better: Direction = "lower" if names & _LOWER or unit in ("s", "ms") else "higher" if names & _HIGHER else ""
    return Measure(key, tuple(words), unit, better)


def families(keys: Iterable[str]) -> list[Family]:
    """Group metrics by what they measure, in the order of their first member.

    Two metrics belong together when they share their first word and their unit; the family is named by all the words
    its members share at the start.
    """
    groups: dict[tuple[str, str], list[Measure]] = {}
    for key in dict.fromkeys(keys):
        measure = parse(key)
        first = measure.words[0].lower()
        lonely = first in _NO_FAMILY
        groups.setdefault((key if lonely else first, measure.unit), []).append(measure)
    result = []
    for (_, unit), measures in groups.items():
        if len(measures) == 1:
            result.append(Family(measures[0].label, unit, [(measures[0].label, measures[0])]))
            continue
        common = _common_words([measure.words for measure in measures])
        members = [(" ".join(measure.words[common:]) or OVERALL, measure) for measure in measures]
        members.sort(key=lambda member: member[0] not in _WHOLE)
        result.append(Family(spell(measures[0].words[:common]), unit, members))
    return result


def decimals(values: Iterable[float]) -> int:
    """How many decimals give the middle one of the values three digits: 0 to 4. Zeros and what is not finite abstain.

    >>> decimals([6.67, 7.53, 10.2])
    2
    """
    sizes = sorted(abs(value) for value in values if math.isfinite(value) and value)
    return min(max(2 - math.floor(math.log10(sizes[len(sizes) // 2])), 0), 4) if sizes else 2


def number(value: float, digits: int | None = None, *, sign: bool = False) -> str:
    """A number for people: an en dash for NaN, a true minus, and a power of ten where decimals would hide the value.

    Args:
        value: what to print.
        digits: decimals; chosen by `decimals` when None.
        sign: also print a plus.
    """
    if math.isnan(value):
        return NO_VALUE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = decimals([value]) if digits is None else digits
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if value != 0 and digits >= 4 and abs(value) < 5e-4:
        mantissa, _, exponent = (f"{value:+.1e}" if sign else f"{value:.1e}").partition("e")
        text = f"{mantissa}e{int(exponent)}"
    elif float(text) == 0:
        text = f"{0:.{digits}f}"  # no sign on what is printed as nothing
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as people say them: 8.2 s, 3 min 12 s, 2 h 5 min.

    >>> duration(192.4)
    '3 min 12 s'
    """
    if not math.isfinite(seconds) or seconds < 0:
        return NO_VALUE
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _common_words(names: Sequence[tuple[str, ...]]) -> int:
    count = 0
    for words in zip(*names, strict=False):
        if len({word.lower() for word in words}) > 1:
            break
        count += 1
    return count
