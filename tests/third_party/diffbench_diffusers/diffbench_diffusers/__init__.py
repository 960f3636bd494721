"""Schedulers and networks of diffusers as components of diffbench: rows of a table beside its own."""
