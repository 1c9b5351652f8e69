"""The one place where the version stands: the package, its metadata and what it writes read it here."""

__version__ = "0.1.0"
