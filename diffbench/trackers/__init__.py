"""Trackers that come with diffbench: modules of hook implementations, each loaded only where a run asks for it."""
