"""A small run and one of its rows, for tests that make the row again."""

import json

from diffbench.api.rerunning import chosen_row
from diffbench.results.comparing import ComparedRun

MATRIX = {
    "diffbench": 1, "name": "small", "dataset": "digits", "extractor": "pixels", "metrics": ["fid", "sliced_wasserstein"],
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": "film",
             "scheduler": [{"ddim": {"steps": 2}}, {"ddpm": {"steps": 2}}]},
    "train": {"steps": 3, "batch_size": 8}, "sample": {"count": 400, "batch_size": 40}, "throughput": {"repeats": 3, "batch_size": 2},
}
ROW = "scheduler=ddpm"


def change(path, **values):
    content = json.loads(path.read_bytes())
    content.update({name: value(content[name]) if callable(value) else value for name, value in values.items()})
    path.write_text(json.dumps(content))


def record(run, row=ROW):
    return run / "cells" / f"{chosen_row(ComparedRun(run), row).cell_id}.json"


def update(run, **parts):
    """Changes one value of a part of environment.json each: part=(name, value)."""
    change(run / "environment.json", **{part: lambda old, new=new: {**old, new[0]: new[1]} for part, new in parts.items()})
