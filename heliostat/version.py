"""The version of both distributions, `heliostat` and `heliostat-client`."""

__version__ = "0.1.0"
