"""The components that come with diffbench: one file each, found through the same entry points as anybody else's."""
