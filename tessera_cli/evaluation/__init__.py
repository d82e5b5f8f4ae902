"""Embeddings and labels -> what the embeddings are worth, and maps."""
