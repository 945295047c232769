"""How good the networks that ship recommend, on every data set and protocol: `python -m benchmarks.quality`."""
