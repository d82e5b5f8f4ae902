"""Embeddings of an area, wherever they come from: folders of `embed`, rasters, downloads of geotessera."""
