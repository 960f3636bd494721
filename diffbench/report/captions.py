"""Paragraph of a table of distances: how near rows come to copies of training images. Used by fid.md, the page."""

from __future__ import annotations

import pandas


def copies(table: pandas.DataFrame) -> str:
    """A paragraph for each data set: near copies and authenticity of its rows and of held-out real images;
    "" where nobody looked for copies.
    """
    if "near_copy_share" not in table:
        return ""
    measured = table[table["near_copy_share"].notna()]
    return "\n\n".join(_of(str(name), part) for name, part in measured.groupby("dataset", sort=False))


def _of(dataset: str, rows: pandas.DataFrame) -> str:
    real, real_authenticity = rows["near_copy_share_of_held_out"].iloc[0], rows["authenticity_of_held_out"].iloc[0]
    text = (f"**Near copies of training images** are {_span(rows['near_copy_share'])} of a row's images, and "
            f"{_percent(real)} of held-out real images of {dataset}; `authenticity` is "
            f"{_span(rows['authenticity'])}, and {_percent(real_authenticity)} for those. ")
    if "near_copy_share_low" not in rows:
        return text + "Too few images for an interval."
    suspects = rows[rows["near_copy_share_low"] > real]
    if suspects.empty:
        return text + "No row's 95 % interval lies above the held-out images."
    return text + (f"**In {len(suspects)} of {len(rows)} rows the whole 95 % interval lies above the held-out images; "
                   "of these the distance says little:** "
                   + ", ".join(f"`{cell_id}`" for cell_id in suspects["cell_id"]) + ".")


def _span(values: pandas.Series) -> str:
    low, high = _percent(values.min()), _percent(values.max())
    return low if low == high else f"{low} to {high}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
