"""Files of labels: polygons, points or a raster, each with a class or a value -> which pixels have which."""
