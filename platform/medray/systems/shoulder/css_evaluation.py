"""How well CSS-Net finds tendon and tear in test slices, and where its classifier looks.

Scores are taken on the image's own pixels, by M_seg alone (`css_scores`). The share of the classifier's Grad-CAM that
lies within 3 mm or pixels of tendon and tear is a number for the paper's fig. 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medray.data.cache import SampleCache
from medray.data.case import Case
from medray.figures.attention import AttentionRow, attention_rows
from medray.figures.drawing import to_png
from medray.metrics.localisation import mass_inside
from medray.metrics.segmentation import Confusion
from medray.nn.attention import grad_cam, guided_grad_cam
from medray.nn.weights import load_network
from medray.system import Evaluation, Figure, Row, Trained
from medray.systems.shoulder.css_building import make_spectrum_net, trained_classifier, trained_segmenter
from medray.systems.shoulder.css_config import CssConfig
from medray.systems.shoulder.css_pictures import Marked, marked_slices, substituted_slices
from medray.systems.shoulder.css_reading import Page, SliceSquares, knows_its_spacing, page_of
from medray.systems.shoulder.css_scores import as_row, class_counts, summarize
from medray.systems.shoulder.css_substitution import TEAR, composite, from_spectrum, to_spectrum

DILATION_PX = 2
"""Around tendon and tear, in pixels of the network's square: attention there counts as on them."""
_EXAMPLES = 5
_PRESENT = 1


@dataclass(frozen=True)
class Scored:
    """A test slice's row, and for torn ones pictures.

    Attributes:
        row: see `css_scores.as_row`.
        counts: pixels of each class, see `css_scores.class_counts`.
        marked: for the outlines.
        attention: where there is a classifier.
        substituted: name, image, I' and truth on the square, where there is S.
    """

    row: Row
    counts: Mapping[str, Confusion]
    marked: Marked
    attention: AttentionRow | None = None
    substituted: tuple[str, NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]] | None = None


@torch.inference_mode()
def segment(segmenter: torch.nn.Module, read: SliceSquares, page: Page) -> NDArray[np.float32]:
    """Probabilities of background, tendon and tear on a page's own pixels, (3, rows, columns)."""
    device = next(segmenter.parameters()).device
    logits = segmenter(torch.from_numpy(read.image(page))[None].to(device))[0]
    return page.from_square(logits.float().softmax(0).cpu().numpy())


def score_case(config: CssConfig, trained: Trained, cache: SampleCache, case: Case) -> Scored:
    """Segment and score one test slice. Runs as a Ray task."""
    read = SliceSquares(config.size_px, config.normalize, cache)
    image = case.volume("image")
    page, truth = page_of(image), page_of(case.volume("label")).array[0].astype(np.uint8)
    segmenter = trained_segmenter(config, trained.weights)
    found = segment(segmenter, read, page).argmax(0).astype(np.uint8)
    row, counts = as_row(case.id, found, truth), class_counts(found, truth)
    spacing = page.spacing if knows_its_spacing(image) else None
    told = ", ".join(f"IoU {name} {row[f'iou_{name}']:.2f}" for name in ("tendon", "tear") if f"iou_{name}" in row)
    marked = Marked(page.array[0], found, truth, f"{case.id}  {told}", spacing)
    if not (truth == TEAR).any():
        return Scored(row, counts, marked)
    attention = _attention(config, trained, segmenter, read, case, row)
    return Scored(row, counts, marked, attention, _substituted(config, trained, read, case))


def _attention(
    config: CssConfig, trained: Trained, segmenter: torch.nn.Module, read: SliceSquares, case: Case, row: Row
) -> AttentionRow | None:
    """Adds ``cam_mass_percent`` and the classifier's probability to the row of a torn slice."""
    if "helpers" not in trained.files or not config.classify:
        return None
    square = read.read(case)
    assert square.label is not None
    classifier = trained_classifier(config, segmenter, trained.files["helpers"])
    images = torch.from_numpy(square.image)[None]
    layer = "head.maps" if config.network == "released" else "head.activation"
    heat = grad_cam(classifier, images, layer, [_PRESENT])[0].numpy()
    fine = guided_grad_cam(classifier, images, layer, [_PRESENT])[0].numpy()
    near = ndimage.binary_dilation(square.label > 0, iterations=DILATION_PX)
    row["cam_mass_percent"] = 100 * mass_inside(heat, near)
    row["cam_mass_by_chance_percent"] = 100 * float(near.mean())
    with torch.no_grad():
        row["tear_probability"] = float(classifier(images).softmax(1)[0, _PRESENT])
    title = f"{case.id}  p(tear) {row['tear_probability']:.2f}"
    return AttentionRow(square.image[0], {"Grad-CAM": heat, "guided Grad-CAM": fine}, square.label > 0, title=title)


def _substituted(
    config: CssConfig, trained: Trained, read: SliceSquares, case: Case
) -> tuple[str, NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]] | None:
    if "helpers" not in trained.files or config.substitute != "sl":
        return None
    square = read.read(case)
    assert square.label is not None
    if not (square.label == TEAR).any():  # too small for the square
        return None
    network = make_spectrum_net(config)
    load_network(network, trained.files["helpers"], prefix="substitution.")
    image, tear = torch.from_numpy(square.image)[None], torch.from_numpy(square.label == TEAR)[None, None].float()
    with torch.inference_mode():
        made = composite(image, tear, from_spectrum(network(to_spectrum(image * tear))))
    return case.id, square.image[0], made[0, 0].numpy(), square.label


def summary_of(scored: Sequence[Scored], name: str) -> Evaluation:
    """Scores over all slices, and pictures of torn slices first."""
    rows = [one.row for one in scored]
    summary = summarize(rows, [one.counts for one in scored])
    for column in ("cam_mass_percent", "cam_mass_by_chance_percent"):
        values = [float(row[column]) for row in rows if column in row]
        if values:
            summary[column] = float(np.mean(values))
    return Evaluation(rows, summary, _figures(scored, name))


def _figures(scored: Sequence[Scored], name: str) -> list[Figure]:
    ordered = sorted(scored, key=lambda one: -_most(one.marked))[:_EXAMPLES]
    caption = "Test slices with most of the tear: the slice, outlines found and true, and the part around the tendon."
    figures = [Figure(f"{name}_slices", caption, to_png(marked_slices([one.marked for one in ordered])))]
    attention = [one.attention for one in ordered if one.attention is not None]
    if attention:
        caption = "Where the classifier looks for the tear; outlined are the true tendon and tear."
        drawn = attention_rows(attention, alone=["guided Grad-CAM"])
        figures.append(Figure(f"{name}_attention", caption, to_png(drawn)))
    made = [one.substituted for one in ordered if one.substituted is not None]
    if made:
        caption = "Torn slices and what substitution learning makes of their tears (dotted); it needs the true mask."
        figures.append(Figure(f"{name}_substitution", caption, to_png(substituted_slices(made))))
    return figures


def _most(marked: Marked) -> int:
    assert marked.truth is not None
    return int(10**6 * (marked.truth == TEAR).sum() + (marked.truth > 0).sum())
