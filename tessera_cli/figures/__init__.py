"""Figures by matplotlib (extra `evaluate`), in one style, for reports of training and evaluation.

A function per kind of figure takes plain values and returns a `Picture`, which is SVG within a page (in the colours of
the page, light or dark) and PNG for everything else. Text of others stands there as it is: nothing in it is a formula.
"""
