"""Seeded generators that return exactly what the readers return, so that every system runs with nothing downloaded.

A generator is a function ``cases(**parameters) -> tuple[Case, ...]`` whose parameters are text, whole numbers, numbers
or switches with defaults; their names and types are what ``phantom:NAME?parameter=value`` accepts.
"""

GENERATORS: dict[str, str] = {
    "abdomen": "medray.data.phantoms.abdomen:cases",
    "kidney": "medray.data.phantoms.histology:kidney_cases",
    "nuclei": "medray.data.phantoms.histology:nuclei_cases",
    "dental": "medray.data.phantoms.dental:cases",
    "ultrasound": "medray.data.phantoms.ultrasound:cases",
    "chest": "medray.data.phantoms.chest:cases",
    "fundus": "medray.data.phantoms.fundus:cases",
    "brain": "medray.data.phantoms.brain:cases",
    "brain_multimodal": "medray.data.phantoms.brain_multimodal:cases",
    "chest_xray": "medray.data.phantoms.chest_xray:cases",
    "axons": "medray.data.phantoms.axons:cases",
    "thorax_ct": "medray.data.phantoms.thorax_ct:cases",
    "shoulder_coronal": "medray.data.phantoms.shoulder_coronal:cases",
    "shoulder_y": "medray.data.phantoms.shoulder_y:cases",
    "shoulder_3d": "medray.data.phantoms.shoulder_3d:cases",
}
"""Name in ``phantom:NAME`` to ``module:function``, imported when asked for."""
