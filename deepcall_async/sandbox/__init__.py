"""A stateful DeepCall on a loopback port, for tests, demos and benchmarks.

It imports nothing else of the package, so that a mistake in the client cannot repeat itself here.

## In a test

With the package installed, pytest has these fixtures and this marker:

- `deepcall_sandbox`: a fresh `Sandbox` for each test, already running.
- `deepcall_client`: a `deepcall_async.DeepCall` that is logged in to it.
- `deepcall_sandbox_factory`: makes one for a fixture of any scope.
- `@pytest.mark.deepcall_sandbox(...)`: the arguments of the test's `Sandbox`. Markers of a
  module, a class and a test are merged, and the nearest one wins.

```python
import pytest


@pytest.fixture(scope="module")
def server(deepcall_sandbox_factory):
    with deepcall_sandbox_factory(groups=50, seed=7) as server:
        yield server


@pytest.fixture(autouse=True)
def as_new(server):
    server.reset()


def test_what_is_planted(server):
    assert server.planted["G002"]
```

Without pytest it is ``async with Sandbox(...) as server``.

## What it can do

- **An account.** ``groups=300`` makes demo groups, whose faults `Sandbox.planted` lists by audit
  rule. ``groups=0`` with `Sandbox.add_agent` and `Sandbox.add_group` is for data of your own.
  With ``empty=True`` a list is refused with 1012.
- **The next requests fail.** `Sandbox.fail_next` names the endpoint as it stands in the URL, such
  as ``getGroupAgentRelation``.
- **Any request may fail.** ``latency``, ``error_rate={503: 0.1, 1009: 0.1}``, ``drop_rate``,
  ``rate_limit`` with or without ``retry_after``, ``ssid_lifetime`` and ``agent_to_agent_call``
  may also be assigned while it runs.
- **Sessions.** `Sandbox.new_ssid` and `Sandbox.expire_ssid`.
- **What was asked.** `Sandbox.calls` has the endpoint, the fields without credentials, and the
  HTTP status and code of each answer. `Sandbox.requests` counts by endpoint.
- **Time.** `Sandbox.advance` moves its clock: create dates, the rate limit, and sessions with
  ``ssid_lifetime=timedelta(...)``. With ``now=`` the clock stands still.
- **The next test.** `Sandbox.reset` puts all back as it was made, at the same address and with
  the same token.
- **TLS.** ``tls=True`` needs the extra ``sandbox-tls``. `Sandbox.ssl_context` is what a client
  takes as ``ssl=``, and `Sandbox.ca_pem` is the authority for other programs.
- **Many accounts.** `SandboxFleet` serves several, each at an address of its own.

## From other languages

``deepcall sandbox --port 8080`` serves one, and the same methods stand under ``/_sandbox/``.
Arguments go by name in a JSON object. The answer is ``{"result": ...}``, or HTTP 400 with
``{"error": "..."}``.

| route | arguments | result |
|---|---|---|
| ``GET /_sandbox/`` | | ``user_id``, ``token``, ``ssid``, ``planted``, ``requests``, ``settings`` |
| ``GET /_sandbox/calls`` | | ``endpoint``, ``fields``, ``http_status``, ``code`` of each |
| ``POST /_sandbox/settings`` | those to change | all settings |
| ``POST /_sandbox/add_agent`` | ``name`` | the agent's id |
| ``POST /_sandbox/add_group`` | ``name``, ``members``, ``status`` | the group's id |
| ``POST /_sandbox/fail_next`` | those of `Sandbox.fail_next` | null |
| ``POST /_sandbox/reset`` | | null |
| ``POST /_sandbox/advance`` | ``seconds`` | null |
| ``POST /_sandbox/new_ssid`` | | the session id |
| ``POST /_sandbox/expire_ssid`` | | null |

A time is written as ``{"ssid_lifetime": {"seconds": 60}}``. For example:

```sh
curl -d '{"endpoint": "list", "http_status": 503}' http://127.0.0.1:8080/_sandbox/fail_next
```
"""

from deepcall_async.sandbox.calls import Call
from deepcall_async.sandbox.fleet import SandboxFleet
from deepcall_async.sandbox.server import Sandbox

__all__ = ["Call", "Sandbox", "SandboxFleet"]
