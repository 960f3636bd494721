"""diffbench_run_stage: a wrapper surrounds a stage's work, may add files, and can neither change its result nor cost it."""

from types import ModuleType, SimpleNamespace

import pytest

from diffbench import hookimpl
from diffbench.registry.registry import Registry
from diffbench.stages.wrappers import run_wrapped

FILES = {"weights.safetensors": b"w", "facts.json": b"{}"}
CONTEXT = SimpleNamespace(task={"seed": 3})


def wrapper(function, **options):
    """A plug-in whose wrapper is this generator function."""
    plugin = ModuleType("plugin")
    plugin.diffbench_run_stage = hookimpl(wrapper=True, **options)(function)
    return plugin


def run(*plugins, work=lambda context: dict(FILES)):
    registry = Registry()
    for i, plugin in enumerate(plugins):
        registry.hooks.register(plugin, name=f"plug{i}")
    before = registry.hooks.get_plugins()
    try:
        return run_wrapped(registry, "train", CONTEXT, work)
    finally:
        assert registry.hooks.get_plugins() == before


def test_it_surrounds_the_work_and_may_add_files(capfd):
    order = []

    def outer(stage, task, context):
        order.append(("before", stage, task, context))
        files = yield
        order.append("after")
        return files | {"energy.json": b"1"}

    def inner():
        order.append("inner before")
        files = yield
        order.append("inner after")
        return files

    def work(context):
        order.append("work")
        assert context is CONTEXT
        return dict(FILES)
    assert run(wrapper(inner), wrapper(outer, tryfirst=True), work=work) == FILES | {"energy.json": b"1"}
    assert order == [("before", "train", CONTEXT.task, CONTEXT), "inner before", "work", "inner after", "after"]
    assert capfd.readouterr().err == ""


def raises_before():
    raise ValueError("no meter")
    yield


def raises_after():
    yield
    raise ValueError("no meter")


def leaves():
    raise SystemExit(0)
    yield


@pytest.mark.parametrize("bad", [raises_before, raises_after, leaves])
def test_one_that_raises_is_left_out_by_name_and_the_stage_runs_once(bad, capfd):
    times = []

    def innocent():
        return (yield)

    def work(context):
        times.append(1)
        return dict(FILES)
    assert run(wrapper(innocent), wrapper(bad), wrapper(innocent), work=work) == FILES and times == [1]
    assert "diffbench: plug-in plug1 is left out: its diffbench_run_stage raised " in capfd.readouterr().err


def returns_nothing():
    yield


def changes():
    return (yield) | {"facts.json": b"better"}


def drops():
    yield
    return {}


def escapes():
    return (yield) | {"../x": b""}


def not_bytes():
    return (yield) | {"x": "text"}


def the_harness_own():
    return (yield) | {"manifest.json": b"{}"}


@pytest.mark.parametrize("bad", [returns_nothing, changes, drops, escapes, not_bytes, the_harness_own])
def test_the_files_of_the_stage_stand(bad, capfd):
    assert run(wrapper(bad)) == FILES
    assert "must return what `yield` gave it, or that with files (name: bytes) added" in capfd.readouterr().err


def swallows():
    try:
        yield
    except RuntimeError:
        return dict(FILES)


def replaces():
    try:
        yield
    except RuntimeError as error:
        raise KeyError("other") from error


@pytest.mark.parametrize("hides", [swallows, replaces, returns_nothing])
def test_what_the_stage_raised_stands(hides):
    def work(context):
        raise RuntimeError("the sky fell")
    with pytest.raises(RuntimeError, match="the sky fell"):
        run(wrapper(hides), work=work)


def test_one_that_yields_twice_is_left_out(capfd):
    def twice():
        yield
        yield
    assert run(wrapper(twice)) == FILES and "has second yield" in capfd.readouterr().err


def test_an_implementation_that_is_no_wrapper_is_never_called(capfd):
    class Replaces:
        @hookimpl(tryfirst=True)
        def diffbench_run_stage(self):
            raise AssertionError("called")

    def adds():
        return (yield) | {"more": b""}
    assert run(Replaces()) == FILES and run(Replaces(), wrapper(adds)) == FILES | {"more": b""}
    assert "plug-in plug0 is left out: its diffbench_run_stage is no wrapper" in capfd.readouterr().err
