"""Going on exactly: loops and data loaders that start where the run that died stood. Works in scripts too."""
