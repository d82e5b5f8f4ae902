"""Embeddings in the files and layouts of other tools."""
