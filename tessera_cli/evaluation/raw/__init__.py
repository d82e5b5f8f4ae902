"""Observations without an encoder: gap-filled series, seasonal medians, statistics over time. Pure numpy."""
