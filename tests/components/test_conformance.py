"""Every registered component, in each of its examples, passes the conformance suite; and the suite finds what is wrong."""

import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from diffbench.errors import UnknownComponent
from diffbench.registry.describing import label
from diffbench.testing import conformance
from diffbench.testing.checks import BY_KIND
from diffbench.testing.conformance import Check, checks, outcome, subjects
from diffbench.testing.stand_ins import all_examples, examples
from tests.conftest import REGISTRY

SLOW = ("scheduler", "conditioning", "backbone", "extractor")


def configurations() -> list:
    found = []
    for ref in subjects(REGISTRY):
        if ref.kind in BY_KIND and ref.distribution == "diffbench":
            marks = [pytest.mark.slow] if ref.kind in SLOW else []
            found += [pytest.param(ref, made, id=f"{ref.kind}-{label(made, REGISTRY)}", marks=marks) for made in examples(REGISTRY, ref.kind, ref.full_name)]
    return found


@pytest.mark.parametrize(("ref", "component"), configurations())
def test_conforms(ref, component):
    found = [outcome(Check(label(component, REGISTRY), statement, run)) for statement, run in BY_KIND[ref.kind](REGISTRY, component)]
    assert not [f"{o.check.statement}: {o.detail}" for o in found if o.status == "failed"]
    assert all(o.detail for o in found if o.status == "not applicable")
    passed = sum(o.status == "passed" for o in found)
    if ref.kind in ("dataset", "extractor") and not passed:
        pytest.skip(found[0].detail)                      # its files are not here
    assert passed >= min(2, len(found)), [o.detail for o in found]


def test_a_failing_conformance_test_says_what_failed_and_little_else(monkeypatch):
    """One line for each failure; no line of torch's own log, and pytest leaves the function out of its traceback."""
    trace, logged = logging.getLogger("torch.__trace"), []

    def wrong():
        trace.debug("pages")
        raise AssertionError("it is wrong")
    made = [Check("uniform", "is right", wrong), Check("uniform", "is", lambda: 1)]
    monkeypatch.setattr(sys.modules["diffbench.testing.conformance"], "checks", lambda registry, ref, quick: made)
    monkeypatch.setattr(trace, "callHandlers", logged.append)
    with pytest.raises(AssertionError) as error:
        conformance("uniform")()
    assert (
        str(error.value) == "1 of 2 checks failed\nuniform is right: it is wrong" and not logged and not trace.disabled
    )
    assert error.traceback[-1].frame.f_locals["__tracebackhide__"]


def test_the_public_test_function(capsys):
    conformance("uniform")()
    with pytest.raises(UnknownComponent, match="no component, kind or package named 'no-such'"):
        conformance("no-such")()


def test_components_are_chosen_by_name_kind_and_package():
    assert [r.full_name for r in subjects(REGISTRY, ("scheduler", "ddim"))] == ["ddim"]
    assert {r.kind for r in subjects(REGISTRY, ("edm",))} == {"noise_schedule", "parameterization"}
    assert {r.full_name for r in subjects(REGISTRY, ("spacing",))} == {r.full_name for r in REGISTRY.refs("spacing")}
    assert len(subjects(REGISTRY, ("diffbench",))) >= 50


def test_a_package_that_cannot_be_made_fails_with_its_reason(monkeypatch):
    cls = REGISTRY.component("scheduler", "ddim")
    monkeypatch.setattr(cls, "examples", ({"eta": 2.0},))
    (only,) = checks(REGISTRY, REGISTRY.find("scheduler", "ddim"))
    assert outcome(only).status == "failed" and "eta must be a number in [0, 1], got 2.0" in outcome(only).detail


def test_replacing_an_option_changes_what_is_checked():
    ddim = REGISTRY.create("scheduler", "ddim")
    assert not replace(ddim, eta=0.0).is_stochastic and replace(ddim, eta=0.3).is_stochastic


def test_the_page_of_gaussian_orders_is_of_these_components():
    """Whole rows and columns by name; one row measured again, by the digit that is printed."""
    from diffbench.testing.checks.convergence import gaussian_order

    page = (Path(__file__).parents[2] / "docs" / "orders.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| ")]
    schedules = all_examples(REGISTRY, "noise_schedule")
    assert [row[0] for row in rows[1:]] == [label(s, REGISTRY) for s in all_examples(REGISTRY, "scheduler")]
    assert len(rows[0]) == 2 + len(schedules)
    heun = next(row for row in rows if row[0] == "heun")
    for printed, schedule in zip(heun[2:5], schedules, strict=False):
        assert float(printed) == pytest.approx(gaussian_order(REGISTRY, REGISTRY.create("scheduler", "heun"), schedule), abs=0.02)
