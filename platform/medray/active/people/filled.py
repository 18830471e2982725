"""What a row of a filled worklist says."""

from __future__ import annotations

from medray.active.answers import Answer
from medray.active.people.rules import CANNOT_LABEL, FINISHED, LabelRules
from medray.active.people.tables import TableRow
from medray.errors import UserError


def read_row(row: TableRow, rules: LabelRules) -> Answer | None:
    """The answer in a row; None where it is not filled in.

    Args:
        row: of a table.
        rules: what counts as a label.

    Returns:
        For a mask, its value is what the column label says: where the mask is, or that there is nothing.

    Raises:
        UserError: an unknown class or status, a contradiction, or a row that may not be whole.
    """
    case, label, note = row.cells["case"], row.cells.get("label", ""), row.cells.get("note", "")
    status = " ".join(row.cells.get("status", "").lower().replace("_", " ").split())
    if not label and status in FINISHED:
        return None
    if row.is_cut:
        raise UserError("the file ends in the middle of it, without a line break; save or copy it again")
    if status in CANNOT_LABEL:
        if label:
            raise UserError(f"it has the label {label!r} and the status {status!r}; leave one of them")
        return Answer(case, "cannot_label", note=note)
    if status not in FINISHED:
        raise UserError(f"the status {status!r} is not known; leave it empty or write {CANNOT_LABEL[0]!r}")
    return Answer(case, "labelled", value=label if rules.kind == "mask" else rules.value_of(label), note=note)
