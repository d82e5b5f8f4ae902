"""Maps: every pixel of a folder gets the class or the value that a light model, fitted on labels, says of it."""
