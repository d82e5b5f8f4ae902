"""Segmentation: small convolutional networks on frozen embeddings, and on raw composites beside them."""
