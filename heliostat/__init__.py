"""The ground floor, light to install: the spec, wire types and the error tree."""

__version__ = "0.1.0"
