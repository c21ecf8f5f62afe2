"""Measurements of a running cluster; each script writes a table and one JSON file in `results/`."""
