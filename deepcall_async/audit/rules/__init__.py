"""The table of rules.

Every rule that ships, once, in the order of its id. The command, the reports and the documentation
all print from here.
"""

from __future__ import annotations

from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import agents, changes, groups, records

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    groups.no_agents,
    groups.nobody_receives,
    groups.single_receiver,
    groups.thin_cover,
    groups.mostly_muted,
    groups.inactive_but_staffed,
    groups.oversized,
    groups.stale_empty,
    groups.odd_create_date,
    groups.duplicate_name,
    groups.suffix_twin,
    groups.name_hygiene,
    groups.same_receivers,
    agents.in_no_group,
    agents.never_receives,
    agents.overloaded,
    agents.key_person,
    agents.twin_agents,
    records.unknown_agent,
    records.wrong_group,
    records.duplicate_relation,
    records.label_drift,
    records.tenant_mismatch,
    records.bad_flag,
    changes.went_dark,
    changes.receivers_lost,
    changes.appeared_or_vanished,
    changes.changed,
    changes.members_changed,
    changes.agent_renamed,
    changes.switched_off,
    changes.lookup_failed,
    changes.changed_mid_run,
    changes.stale_mute,
    changes.rule_failed,
)
"""All rules that ship, G001 to X004. Add your own: ``audit(snapshot, rules=(*RULES, mine))``."""
