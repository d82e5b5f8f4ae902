"""Embeddings as a picture and a page to look at."""
