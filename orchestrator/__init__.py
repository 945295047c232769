"""Rents a machine, uploads, runs the trainer there, fetches what it made and gives everything back."""
