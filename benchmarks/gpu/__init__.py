"""A day on a GPU: everything that CUDA decides, tried, measured and written down in one run.
See README.md beside this file.
"""
