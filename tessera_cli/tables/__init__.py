"""Embeddings at points and over polygons, as tables."""
