"""The version of this package, where every floor may read it."""

VERSION = "0.1.0"
