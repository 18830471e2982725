"""What is measured of a muscle: its area, and how much of it is fat."""

from __future__ import annotations

from medray.data.case import Volume
from medray.systems.shoulder.goutallier_fat import fat_fraction_percent, fat_mask
from medray.systems.shoulder.goutallier_images import YView
from medray.systems.shoulder.goutallier_regions import Mask


def knows_mm(volume: Volume) -> bool:
    """Whether the file says how large a pixel is: pictures and arrays do not, and then have 1 mm."""
    return volume.header.get("format") not in ("raster", "array") or set(volume.spacing) != {1.0}


def measures(view: YView, muscle: Mask, *, in_mm: bool) -> dict[str, float]:
    """Area in mm2, or in pixels where their size is unknown, and fat in percent; nothing of an empty mask.

    Args:
        view: the image.
        muscle: (H, W).
        in_mm: whether the pixel size is known.
    """
    if not muscle.any():
        return {}
    pixels = float(muscle.sum())
    area = {"muscle_area_mm2": pixels * view.spacing[0] * view.spacing[1]} if in_mm else {"muscle_area_px": pixels}
    return area | {"fat_fraction_percent": fat_fraction_percent(fat_mask(view.image, muscle), muscle)}
