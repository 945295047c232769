"""Datasets: text and tables in, NetCDF and batches out. Nothing here knows JAX."""
