"""Renders plan, progress and outcome for people and for programs."""
