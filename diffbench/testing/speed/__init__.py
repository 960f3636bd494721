"""Speed of components: cases for each registered one, their times and exact counts. Used by `diffbench bench`.

`components` makes the cases (`case`); `figures` are times with their machine; `counting` counts, and `counts_file`
keeps what was reviewed.
"""
