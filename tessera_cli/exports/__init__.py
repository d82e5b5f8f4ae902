"""A finished folder of embeddings, written in the forms that other programs open: one module per target."""
