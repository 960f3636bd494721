"""Reports of a run: tables, the page, exports, pictures."""
