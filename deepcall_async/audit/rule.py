"""What a rule is: a pure function from a `Context` to hits, with the texts that explain it.

No rule stands here; they are in ``rules``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from msgspec import Struct

from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import SEVERITIES, Finding, Hit, Identity, Severity

__all__ = ["Check", "Rule", "rule"]

Check: TypeAlias = Callable[[Context], Iterable[Hit]]
"""A rule's function."""


class Rule(Struct, frozen=True, kw_only=True):
    """One rule of an audit.

    Args:
        id: short and stable, such as ``"G002"``: what mutes, options and other runs refer to.
        name: the same in words, such as ``"nobody-receives"``.
        severity: of its findings, unless a hit says otherwise.
        meaning: what it means when it fires, in one line.
        fix: what to do then, in one line.
        check: the function.
        many: how a sentence about several subjects ends, such as ``"groups have a blank name"``;
            for folding many findings into one.
        compares: it needs a baseline and does not run without one.
        whole_account: it judges the whole account, and does not run when only chosen groups were
            asked for or a lookup failed.

    Raises:
        ValueError: the id is blank or the severity is none that exists.
    """

    id: str
    name: str
    severity: Severity
    meaning: str
    fix: str
    check: Check
    many: str = ""
    compares: bool = False
    whole_account: bool = False

    def __post_init__(self) -> None:
        if not self.id.strip() or self.severity not in SEVERITIES:
            raise ValueError(f"rule {self.id!r}: it needs an id and one of {', '.join(SEVERITIES)}")

    def find(self, context: Context) -> Iterator[Finding]:
        """Run the rule.

        Args:
            context: what to judge.

        Returns:
            Its findings, in the order of its hits.
        """
        return map(self.finding, self.check(context))

    def finding(self, hit: Hit, *, new: bool | None = None) -> Finding:
        """Make a hit of this rule a finding.

        Args:
            hit: the hit.
            new: whether the baseline lacked it.
        """
        return Finding(
            rule=self.id,
            severity=hit.severity or self.severity,
            group_id=hit.group_id,
            agent_id=hit.agent_id,
            message=hit.message,
            evidence=hit.evidence,
            key=hit.key,
            new=new,
        )

    def identity(self, hit: Hit) -> Identity:
        """What makes a hit of this rule the same finding in another run."""
        return (self.id, hit.severity or self.severity, hit.group_id, hit.agent_id, hit.key)


def rule(
    id: str,  # noqa: A002  (the name users know it by)
    name: str,
    severity: Severity,
    *,
    meaning: str,
    fix: str,
    many: str = "",
    compares: bool = False,
    whole_account: bool = False,
) -> Callable[[Check], Rule]:
    """Turn a function from `Context` to `Hit`s into a `Rule`; see there for the arguments.

    Example:
        >>> @rule("B001", "blank-name", "low", meaning="It has no name.", fix="Name the group.")
        ... def blank_name(context):
        ...     for group in context.snapshot.groups:
        ...         if not group.name.strip():
        ...             yield Hit(message=f"{group.unique_id} is blank.", group_id=group.unique_id)
        >>> report = await run_audit(dc, rules=(*RULES, blank_name))
    """

    def decorate(check: Check) -> Rule:
        return Rule(
            id=id,
            name=name,
            severity=severity,
            meaning=meaning,
            fix=fix,
            check=check,
            many=many,
            compares=compares,
            whole_account=whole_account,
        )

    return decorate
