"""A stateful DeepCall on a loopback port, for tests, demos and benchmarks.

It imports nothing else of the package, so that a mistake in the client cannot repeat itself here.
"""

from deepcall_async.sandbox.calls import Call
from deepcall_async.sandbox.fleet import SandboxFleet
from deepcall_async.sandbox.server import Sandbox

__all__ = ["Call", "Sandbox", "SandboxFleet"]
