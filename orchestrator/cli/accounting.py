"""Verbs that look around and reckon."""
