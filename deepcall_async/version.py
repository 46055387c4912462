"""The version, where the build and the code both find it.

Law: nothing but the version.
"""

__version__ = "0.1.0"
