"""The version, for modules inside the package: they import nothing of the public API above them."""

__version__ = "0.1.0"
