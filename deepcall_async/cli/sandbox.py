"""The command ``deepcall sandbox``: serve the built-in sandbox."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from deepcall_async.cli.exits import Stopped, UsageError, usage_errors
from deepcall_async.cli.parameters import DEMO_GROUPS, Number, Seconds, Whole, in_range, split
from deepcall_async.cli.terminal import emit, say

if TYPE_CHECKING:
    from deepcall_async.sandbox import SandboxFleet

__all__ = ["serve_sandbox"]


FAULTS = Group("Faults", sort_key=10)


def serve_sandbox(
    *,
    port: Annotated[Whole, Parameter(help="Where to listen on 127.0.0.1; 0 for any.")] = 0,
    groups: Annotated[Whole, Parameter(help="Groups in the demo account.")] = DEMO_GROUPS,
    agents: Annotated[Whole, Parameter(help="Agents of its larger roster.")] = 150,
    seed: Annotated[Whole, Parameter(help="Data and faults follow from it.")] = 0,
    accounts: Annotated[
        Whole | None,
        Parameter(help="Serve N accounts at one address, and print a fleet.toml of them."),
    ] = None,
    empty: Annotated[
        bool, Parameter(help="An account without groups, told by code 1012.", negative="")
    ] = False,
    tls: Annotated[
        Path | None,
        Parameter(help="Serve HTTPS, and write the certificate to trust (--ca) to this file."),
    ] = None,
    latency: Annotated[
        Seconds, Parameter(help="Time from acting to answering.", group=FAULTS)
    ] = 0.0,
    error_rate: Annotated[
        tuple[str, ...],
        Parameter(
            help="An error, by its DeepCall code or HTTP status; repeatable.",
            negative="",
            metavar="CODE=PROBABILITY",
            group=FAULTS,
        ),
    ] = (),
    drop_rate: Annotated[
        float,
        Parameter(help="That an answer is lost.", metavar="PROBABILITY", group=FAULTS),
    ] = 0.0,
    rate_limit: Annotated[
        Number | None, Parameter(help="Requests a second; beyond it HTTP 429.", group=FAULTS)
    ] = None,
    retry_after: Annotated[
        bool, Parameter(help="Whether that 429 says how long to wait.", group=FAULTS)
    ] = True,
    agent_to_agent_call: Annotated[
        bool, Parameter(help="Whether the account has that permission.", group=FAULTS)
    ] = True,
    ssid_lifetime: Annotated[
        Whole | None, Parameter(help="Requests after which a session id expires.", group=FAULTS)
    ] = None,
) -> int:
    """Serve the sandbox, and print the environment for its account."""
    in_range("--port", port, 0, 65_535)
    in_range("--groups", groups, 0, 1_000_000)
    in_range("--agents", agents, 60, 1_000_000)
    in_range("--seed", seed, 0, 2**63)
    in_range("--latency", latency, 0, 86_400, "seconds")
    in_range("--drop-rate", drop_rate, 0, 1)
    in_range("--rate-limit", rate_limit, 0.001, 1_000_000)
    in_range("--ssid-lifetime", ssid_lifetime, 0, 10**9, "seconds")
    if empty and groups != DEMO_GROUPS:
        raise UsageError("--empty is an account without groups: leave out --groups")
    if accounts is not None:
        in_range("--accounts", accounts, 1, 10_000)
        faults = (latency, error_rate, drop_rate, rate_limit, ssid_lifetime)
        if any(faults) or empty or tls is not None or not (retry_after and agent_to_agent_call):
            raise UsageError("--accounts takes --port, --groups, --agents and --seed only")
        return _serve_accounts(accounts, groups, agents, seed, port)
    import asyncio

    from deepcall_async.cli.files import replace_file
    from deepcall_async.cli.loop import run_async
    from deepcall_async.sandbox import Sandbox

    rates = _rates(error_rate)
    with usage_errors("--error-rate"):  # all else was checked
        sandbox = Sandbox(
            groups=groups,
            agents=agents,
            port=port,
            seed=seed,
            latency=latency,
            error_rate=rates,
            drop_rate=drop_rate,
            rate_limit=rate_limit,
            retry_after=retry_after,
            agent_to_agent_call=agent_to_agent_call,
            ssid_lifetime=ssid_lifetime,
            tls=tls is not None,
            empty=empty,
        )

    async def work() -> None:
        with usage_errors(f"--port {port}"):
            server = await sandbox.__aenter__()
        try:
            if tls is not None:
                replace_file(tls, server.ca_pem.encode())
            emit(
                f"export DEEPCALL_BASE_URL={server.base_url}\n"
                f"export DEEPCALL_USER_ID={server.user_id}\n"
                f"export DEEPCALL_TOKEN={server.token}\n"
            )
            shown = 0 if empty else groups
            say(f"{shown} groups at {server.base_url}; end with Ctrl-C")
            await asyncio.Event().wait()
        finally:
            await server.__aexit__(None, None, None)

    # A signal is how it is meant to end; a service manager sends SIGTERM.
    with suppress(Stopped):
        run_async(work())
    return 0


def _serve_accounts(accounts: int, groups: int, agents: int, seed: int, port: int) -> int:
    """Serve several accounts, and print how to audit them."""
    import asyncio

    from deepcall_async.cli.loop import run_async
    from deepcall_async.sandbox import SandboxFleet

    with usage_errors():
        fleet = SandboxFleet(accounts, groups=groups, agents=agents, seed=seed, port=port)

    async def work() -> None:
        with usage_errors(f"--port {port}"):
            await fleet.__aenter__()
        try:
            emit(_fleet_toml(fleet))
            say(
                f"{accounts} accounts of {groups} groups at {fleet.base_url}; end with Ctrl-C\n"
                "with this output in fleet.toml and what its comments export:\n"
                "  eval \"$(sed -n 's/^# //p' fleet.toml)\"\n"
                "  deepcall fleet audit fleet.toml --folder audits"
            )
            await asyncio.Event().wait()
        finally:
            await fleet.__aexit__(None, None, None)

    with suppress(Stopped):
        run_async(work())
    return 0


def _fleet_toml(fleet: SandboxFleet) -> str:
    """The accounts as `deepcall fleet audit` takes them; the credentials stand in comments."""
    names = [f"sandbox-{number}" for number in range(1, len(fleet.accounts) + 1)]
    lines = []
    for name, account in zip(names, fleet.accounts, strict=True):
        prefix = name.replace("-", "_").upper()
        lines.append(f"# export {prefix}_USER_ID={account.user_id} {prefix}_TOKEN={account.token}")
    for name in names:
        prefix = name.replace("-", "_").upper()
        lines += ["", "[[account]]", f'name = "{name}"', f'credentials = "env:{prefix}"']
        lines.append(f'base_url = "{fleet.base_url}"')
    return "\n".join(lines) + "\n"


def _rates(given: tuple[str, ...]) -> dict[int, float]:
    rates = {}
    for item in split(given):
        code, _, probability = item.partition("=")
        try:
            rates[int(code)] = float(probability)
        except ValueError:
            said = f"--error-rate {item}: give CODE=PROBABILITY, such as 1032=0.05"
            raise UsageError(said) from None
    return rates
