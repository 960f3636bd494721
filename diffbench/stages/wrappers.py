"""The hook `diffbench_run_stage` in a worker: plug-ins wrap the work of a stage, and can neither change nor cost its
result.

What the stage returned or raised stands, whatever a wrapper does. A wrapper may add files to the artefact. One that
raises, returns something else or is no wrapper at all is left out with a warning in the stage's log.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffbench.registry.hooks import hookimpl

if TYPE_CHECKING:
    from diffbench.registry.registry import Registry
    from diffbench.stages.context import Context, Files

HOOK = "diffbench_run_stage"


def run_wrapped(registry: Registry, stage: str, context: Context, work: Callable[[Context], Files]) -> Files:
    """The files of a stage, with those that wrappers added; raises what the stage raised."""
    implementations = getattr(registry.hooks.hook, HOOK).get_hookimpls()
    wrappers = [i for i in implementations if i.wrapper or i.hookwrapper]
    for other in (i for i in implementations if i not in wrappers):
        _warn(f"plug-in {other.plugin_name} is left out: its {HOOK} is no wrapper; write @hookimpl(wrapper=True) and "
              "yield")
    if not wrappers:
        return work(context)
    core = _Core(work, context)
    registry.hooks.register(core, name="diffbench stage")
    try:
        answer = registry.hooks.subset_hook_caller(HOOK, [i.plugin for i in implementations if i not in wrappers])(
            stage=stage, task=context.task, context=context)
    except BaseException as error:  # also sys.exit in a wrapper must not cost the stage's result
        if error is core.raised or isinstance(error, KeyboardInterrupt):
            raise
        _warn(f"plug-in {_culprit(error, wrappers)} is left out: its {HOOK} raised {type(error).__name__}: {error}",
              error)
        answer = core.files
    finally:
        registry.hooks.unregister(core)
    if core.raised is not None:                           # a wrapper swallowed it
        raise core.raised
    if core.files is None:                                # a wrapper raised before its turn came
        return work(context)
    is_kept = isinstance(answer, dict) and all(answer.get(name) == data for name, data in core.files.items())
    if not is_kept or not all(_is_file(item) for item in answer.items() if item[0] not in core.files):
        _warn(f"what wrappers made of the stage's files is left out: a {HOOK} must return what `yield` gave it, or "
              "that with files (name: bytes) added")
        return core.files
    return answer


class _Core:
    """The innermost implementation: the stage itself, run once, its outcome kept."""

    def __init__(self, work: Callable[[Context], Files], context: Context):
        self.work, self.context = work, context
        self.files: Files | None = None
        self.raised: BaseException | None = None

    @hookimpl(trylast=True)
    def diffbench_run_stage(self) -> Files:
        try:
            self.files = self.work(self.context)
        except BaseException as error:
            self.raised = error
            raise
        return dict(self.files)


def _is_file(item: tuple[Any, Any]) -> bool:
    name, data = item
    return (isinstance(name, str) and isinstance(data, bytes)
            and name not in ("", ".", "..", "task.json", "manifest.json") and not set("/\\\0") & set(name))


def _culprit(error: BaseException, wrappers: list[Any]) -> str:
    """The innermost wrapper that the exception came through."""
    owners = {i.function.__code__: i.plugin_name for i in wrappers if hasattr(i.function, "__code__")}
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((owners[code] for code in reversed(frames) if code in owners),
                " or ".join(i.plugin_name for i in wrappers))


def _warn(text: str, error: BaseException | None = None) -> None:
    if error is not None:
        traceback.print_exception(error)
    print(f"diffbench: {text}", file=sys.stderr, flush=True)
