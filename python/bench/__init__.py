"""Tenfold beside the standard library and other packages: `make bench-python`.

    __main__    the command line               systems   what is measured, and what each can do
    cell        one measurement, in a process  peers     packages with interfaces of their own
    crew        processes that work at once    rows/     what is done with them, a file a group
    summary     medians, spreads, ratios       report    the table and the JSON;  picture   the SVG
"""
