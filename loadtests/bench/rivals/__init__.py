"""Other servers of models beside the gateway: `python -m loadtests.bench.rivals --help`.

`roster` is the table of them; each has a start script here, which its own interpreter runs.
"""
