"""Figures by matplotlib (extra `evaluate`), in one style, for reports of training and evaluation."""
