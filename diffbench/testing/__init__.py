"""For authors of components: the conformance suite and the exact denoisers it measures against."""

from diffbench.testing.conformance import conformance

__all__ = ["conformance"]
