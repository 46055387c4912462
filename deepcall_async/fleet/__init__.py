"""Audits of many accounts. Files are the state: an account whose record is whole is not asked.

Each account's audit is ``run_audit`` with a record of its own; what it came to is data of
``audit.fleet``. Which process or machine an account is audited on is the choice of an engine, a
function of the shape of `fan_out`: ``audit_fleet(..., fan_out=mine)``. Rules of your own go with
``audit_fleet(..., rules=(*RULES, mine))``.

```python
import asyncio
from pathlib import Path

from deepcall_async.fleet import Account, audit_fleet, read_fleet, render_fleet


async def main():
    accounts = [Account("north", "env:DEEPCALL"), Account("south", "env:SOUTH")]
    async for report in audit_fleet(accounts, folder="audits"):
        print(report.name, report.complete, report.dark_groups)
    fleet = read_fleet(["audits"])
    Path("fleet.html").write_bytes(render_fleet(fleet, "html"))
    print(len(fleet.unread), "account was not read")


asyncio.run(main())
```

```text
south False 0
north True 8
1 account was not read
```

## The accounts

``fleet.toml`` holds references to credentials and no secret. Each reference is looked up where
its account is audited, and travels nowhere. An account that is there twice, by its name or by its
credentials, is refused. Each account has its own rate, retry budget, rosters and patience, so that
one that is away keeps no other waiting.

To try it, ``deepcall sandbox --accounts 20`` serves twenty accounts and prints a ``fleet.toml``
of them. In tests it is `deepcall_async.sandbox.SandboxFleet`.

## The folder

``accounts/NAME.jsonl`` is an account's last whole record, and ``NAME.jsonl.part`` is what was
read of an unfinished one. ``baselines/NAME.jsonl`` is what the last whole record was compared
with. After Ctrl-C, or ``kill -9`` of anything, the same command goes on:
accounts whose records are whole are asked nothing.

``--again`` begins a new night, in which each account is compared with its last whole record. A
night that was cut short is gone on with.

The page ranks the accounts: what was not read first, then groups that ring nobody, new before
old. Each account has a page of its own beside its record, with what changed since the record
before.

A record that is damaged is kept as ``NAME.jsonl.damaged-TIME``, and the account is read anew. It
is noticed when the record is needed: for the account's page, or in the next night.

Mutes are for all accounts. One that matches nothing is not told (X003), because it may be of
another account.

An account of which a single group could not be read is unread, and the exit code is 3. It is 4
only when all credentials were refused.

## Where it runs

- In one process: ``--at-once 64`` accounts at once, each with adaptive concurrency.
- On the cores of one machine: ``--processes 4``. A child that dies is begun anew.
- On machines that share a folder: ``--shard I/N`` on each, with exit code 0 or 3, and then
  ``deepcall fleet report``.
- On a Dask cluster whose workers have this package and see the folder: ``--dask
  tls://scheduler.example:8786``, or ``--dask local``, with the extra ``dask``.

Every night from cron:

```text
0 4 * * *  /opt/deepcall/bin/deepcall fleet audit /etc/deepcall/fleet.toml --folder /var/lib/deepcall/fleet --again --quiet
```

With GNU parallel:

```sh
seq 0 3 | parallel deepcall fleet audit fleet.toml --folder audits --again --shard {}/4
deepcall fleet report audits -o html:fleet.html
```

As an indexed job of Kubernetes:

```yaml
apiVersion: batch/v1
kind: Job
metadata:
  name: fleet-audit
spec:
  completionMode: Indexed
  completions: 8
  parallelism: 8
  backoffLimitPerIndex: 6
  podFailurePolicy:
    rules:
      - action: FailIndex # accounts that could not be read are no reason to read the others again
        onExitCodes: {operator: In, values: [2, 3]}
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: audit
          image: registry.example/deepcall:latest
          args: [fleet, audit, /etc/deepcall/fleet.toml, --folder, /audits, --again, --shard, $(JOB_COMPLETION_INDEX)/8]
          envFrom:
            - secretRef: {name: deepcall-accounts}
          volumeMounts:
            - {name: audits, mountPath: /audits}
            - {name: fleet, mountPath: /etc/deepcall}
      volumes:
        - name: audits
          persistentVolumeClaim: {claimName: audits}
        - name: fleet
          configMap: {name: deepcall-fleet}
```
"""  # noqa: E501  (a crontab line cannot be broken)

from deepcall_async.audit.accounts import Account
from deepcall_async.audit.fleet import AccountReport, FleetReport, FleetSummary
from deepcall_async.audit.formats.fleet import render_fleet
from deepcall_async.fleet.account import AuditPlan
from deepcall_async.fleet.folder import baseline_of, read_fleet, record_of
from deepcall_async.fleet.run import Engine, audit_fleet

__all__ = [
    "Account",
    "AccountReport",
    "AuditPlan",
    "Engine",
    "FleetReport",
    "FleetSummary",
    "audit_fleet",
    "baseline_of",
    "read_fleet",
    "record_of",
    "render_fleet",
]
