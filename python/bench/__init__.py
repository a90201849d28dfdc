"""Tenfold beside the standard library and other packages: `make bench-python`.

- `__main__`: the command line
- `systems`: what is measured, and what each can do; `peers`: packages with interfaces of their own
- `row`, `rows`: what is done with them, a file a group
- `tasks`: what workers are sent; `crew`: processes that work at once
- `cell`: one measurement in a process of its own, a `program`; `summary`: medians, spreads, ratios
- `curve`, `curves`: the same work at several sizes, each a row of its own: `make bench-curves`
- `report`: the tables and the JSON; `picture`: an SVG of either, drawn with `svg`; `figures`: how
  numbers are written
- `docs`: the tables and pictures put into docs/benchmarks.md: `make bench-docs`
"""
