"""Runs can be forked whatever was computed in the process of the tests before."""

import os

import torch

from tests.helpers.forking import Forked

DEEP = 100                                                # backward passes in each other; autograd starts threads at 60


class Nested(torch.autograd.Function):
    """A function whose derivative takes that of another such function, to a depth."""

    @staticmethod
    def forward(ctx, x, depth):
        ctx.depth = depth
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if ctx.depth > 0:
            derive(ctx.depth - 1)
        return grad, None


def derive(depth=0):
    """Zero, after a backward pass."""
    with torch.enable_grad():
        Nested.apply(torch.ones(1, requires_grad=True), depth).sum().backward()
    return 0


def test_autograd_works_in_a_fork_where_its_threads_run():
    derive(DEEP)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            derive()
            code = 0
        except RuntimeError as error:
            code = 2 if "fork" in str(error) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2, "else this test shows nothing"
    assert Forked(derive).go().wait(60) == 0
    assert Forked(derive, DEEP).go().wait(60) == 0, "nor does it matter what forks before it have done"
    assert Forked(derive).go().wait(60) == 0


def test_a_fork_ends_with_what_its_function_returns_or_1_and_finds_environment_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFBENCH_TEST_CODE", "7")
    assert Forked(named_code).go().wait(60) == 7
    monkeypatch.delenv("DIFFBENCH_TEST_CODE")
    assert Forked(named_code).go().wait(60) == 1
    assert (tmp_path / "here").exists()


def named_code():
    """The code that the environment names."""
    open("here", "w").close()
    return int(os.environ["DIFFBENCH_TEST_CODE"])
