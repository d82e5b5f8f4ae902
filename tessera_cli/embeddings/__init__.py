"""A finished folder of embeddings, opened: its tiles, their pixels, and all of it as an xarray Dataset."""
