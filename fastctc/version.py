"""The version of the package. Every other module can import this one."""

__version__ = "0.1.0"
