"""The version of this package, in a module that every layer can import."""

VERSION = "0.1.0"
