"""Audits of many accounts. Files are the state: an account whose record is whole is not asked.

Each account's audit is ``run_audit`` with a record of its own; what it came to is data of
``audit.fleet``. Which process or machine an account is audited on is the choice of an engine, a
function of the shape of `fan_out`.
"""

from deepcall_async.audit.accounts import Account
from deepcall_async.audit.fleet import AccountReport, FleetReport
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
    "audit_fleet",
    "baseline_of",
    "read_fleet",
    "record_of",
    "render_fleet",
]
