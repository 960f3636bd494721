"""Audit of a store: every artefact is read and checked. Used by `diffbench doctor`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from diffbench.store.artefacts import Store
from diffbench.store.inventory import Item, holders, take_inventory


@dataclass
class Audit:
    """The state of a store, as an audit finds it."""

    artefacts: Counter[str] = field(default_factory=Counter)              # by stage
    sizes: Counter[str] = field(default_factory=Counter)                  # bytes by stage
    damaged: list[Item] = field(default_factory=list)                     # set aside by this audit
    staging: list[Item] = field(default_factory=list)                     # being written, or left by a kill
    partials: list[Item] = field(default_factory=list)                    # of stages that are done
    attempts: list[Item] = field(default_factory=list)                    # of stages that are not
    void_claims: list[str] = field(default_factory=list)                  # keys claimed by processes that are no more
    set_aside: int = 0                                                    # damaged artefacts that still lie there
    strange: list[str] = field(default_factory=list)


def audit(store: Store) -> Audit:
    """Verifies every artefact against its manifest.

    Damaged ones are set aside, so that the next run builds them again.
    """
    inventory, result = take_inventory(store), Audit()
    artefacts = inventory.of("artefact")
    state = store.find((item.stage, item.key) for item in artefacts)
    for item in artefacts:
        if item.key in state.done:
            result.artefacts[item.stage] += 1
            result.sizes[item.stage] += item.measure()[0]
        elif item.key in state.damaged:
            result.damaged.append(item)
    result.staging = inventory.of("staging")
    result.partials = [item for item in inventory.of("partial") if item.key in state.done]
    result.attempts = [item for item in inventory.of("attempts") if item.key not in state.done]
    result.void_claims = [key for key, holder in holders(store).items() if holder is None]
    result.set_aside = len(inventory.of("damaged"))
    result.strange = inventory.strange
    return result
