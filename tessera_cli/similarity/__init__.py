"""Search by example: how alike the embeddings of an area are to those of a few places."""
