"""The sandbox's demo account: groups, rosters and the faults planted in them.

The same arguments always give the same account; there is no clock and no I/O here.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deepcall_async.sandbox.account import OWNER, Agent, Group, Relation
from deepcall_async.sandbox.checks import integer

__all__ = ["BRANCH", "DemoAccount", "demo_account"]

BRANCH = "29791466"
"""The account's second user: it owns the rest of the demo account and has the larger roster."""

_DAY = 86_400
_MIN_AGENTS = 60  # group 1 holds nearly all of them and has to count as oversized
_OVERLOADED_ABOVE = 10

# The roster and the group on the vendor's "Group Agent Relation" page, in the page's order.
_VENDOR_ROSTER = (
    (1, "bhawesh"),
    (2, "bhawesh"),
    (6, "Bhawna"),
    (9, "Sumit"),
    (3, "bhawesh"),
    (5, "Brijendra"),
    (10, "Manoj Kumar111"),
    (4, "vijay developer"),
    (7, "Manoj Kumar111"),
    (8, "manoj"),
    (11, "Manoj Kumar111"),
)
_VENDOR_GROUP_ID = 28
_VENDOR_MEMBERS = (3, 8, 2)
_VENDOR_CREATE_DATE = 1_731_746_318

# Agents who left: still in a group and in its labels, in no roster. Between both rosters' ids.
_FORMER_AGENTS = ((91, "Asha Kulkarni"), (92, "Deepak Rawat"))
_FIRST_BRANCH_AGENT = 101

_CITIES = (
    *("Agra", "Ajmer", "Amritsar", "Bhopal", "Chennai", "Coimbatore", "Cuttack", "Dehradun"),
    *("Delhi", "Goa", "Guwahati", "Hubli", "Indore", "Jaipur", "Jodhpur", "Kanpur", "Kochi"),
    *("Kolkata", "Lucknow", "Madurai", "Mumbai", "Mysuru", "Nagpur", "Patna", "Pune", "Ranchi"),
    *("Shimla", "Surat", "Udaipur", "Varanasi"),
)
_DEPARTMENTS = (
    *("Sales", "Support", "Returns", "Collections", "Onboarding", "Claims", "Bookings", "Loans"),
    *("Feedback", "Dispatch", "Upgrades", "Retention", "Admissions", "Pharmacy", "Deliveries"),
    *("Warranty", "Insurance", "Surveys", "Donations", "Front desk"),
)
_FIRST_NAMES = (
    *("Aarav", "Aditi", "Ajay", "Akash", "Amit", "Anil", "Anita", "Arjun", "Asif", "Bharat"),
    *("Chetan", "Divya", "Farah", "Gaurav", "Geeta", "Harish", "Imran", "Isha", "Jaya", "Karan"),
    *("Kavita", "Lakshmi", "Manish", "Meena", "Mohan", "Naveen", "Neha", "Nikhil", "Pooja"),
    *("Priya", "Rahul", "Rekha", "Ritu", "Rohit", "Sana", "Sanjay", "Sunita", "Tarun", "Uma"),
    *("Vikram",),
)
_LAST_NAMES = (
    *("Agarwal", "Ahmed", "Bansal", "Bhat", "Chauhan", "Das", "Desai", "Dubey", "Fernandes"),
    *("Gill", "Goyal", "Gupta", "Iyer", "Jain", "Joshi", "Kapoor", "Khan", "Kulkarni", "Kumar"),
    *("Malhotra", "Mehta", "Menon", "Mishra", "Nair", "Pandey", "Patel", "Pillai", "Rao"),
    *("Rathore", "Reddy", "Roy", "Saxena", "Sethi", "Shah", "Sharma", "Singh", "Sinha", "Tiwari"),
    *("Verma", "Yadav"),
)


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """Groups by id, rosters by the user who owns them, and what is wrong: rule to ids."""

    groups: dict[int, Group]
    rosters: dict[str, tuple[Agent, ...]]
    planted: dict[str, tuple[int, ...]]


class _Card(NamedTuple):
    """What a group needs of one agent, made once and shared by all groups."""

    agent_id: int
    label: str
    on: Relation
    off: Relation


class _Deck:
    """Deals agents evenly, so that nobody is overloaded by chance."""

    def __init__(self, cards: Iterable[_Card], rng: random.Random) -> None:
        self._cards = list(cards)
        self._rng = rng
        self._next = len(self._cards)

    def deal(self, count: int) -> list[_Card]:
        """Take the next ``count`` distinct agents."""
        if self._next + count > len(self._cards):
            self._rng.shuffle(self._cards)
            self._next = 0
        self._next += count
        return self._cards[self._next - count : self._next]


# A twist breaks a group already built: (group, an agent who is not in it, the groups before it).
_Twist = Callable[[Group, _Card, Mapping[int, Group]], Group]


def _with_rows(group: Group, *rows: Relation) -> Group:
    return group._replace(relations=(*group.relations, *rows))


def _with_labels(group: Group, *labels: str) -> Group:
    return group._replace(labels=(*group.labels, *labels))


def _same_receivers(group: Group, _: _Card, groups: Mapping[int, Group]) -> Group:
    twin = groups[group.unique_id - 1]
    return group._replace(relations=twin.relations, labels=twin.labels)


def _unknown_agents(group: Group, _: _Card, __: Mapping[int, Group]) -> Group:
    former = [Agent(agent_id, name, group.user_id) for agent_id, name in _FORMER_AGENTS]
    rows = [Relation(agent.unique_id, "Y", agent.user_id) for agent in former]
    return _with_labels(_with_rows(group, *rows), *(agent.label for agent in former))


def _wrong_group(group: Group, spare: _Card, _: Mapping[int, Group]) -> Group:
    # Only a row names another group. A reply about another group would never reach an audit.
    return _with_rows(group, spare.on._replace(group_id=group.unique_id - 1))


def _doubled_relation(group: Group, _: _Card, __: Mapping[int, Group]) -> Group:
    return _with_rows(group, group.relations[0])


def _conflicting_relation(group: Group, _: _Card, __: Mapping[int, Group]) -> Group:
    return _with_rows(group, group.relations[0]._replace(receive_call="N"))


def _stale_label(group: Group, spare: _Card, _: Mapping[int, Group]) -> Group:
    return _with_labels(group, spare.label)


def _missing_label(group: Group, _: _Card, __: Mapping[int, Group]) -> Group:
    return group._replace(labels=group.labels[:-1])


def _foreign_tenant(group: Group, _: _Card, __: Mapping[int, Group]) -> Group:
    first, *others = group.relations
    return group._replace(relations=(first._replace(user_id=OWNER), *others))


def _bad_flag(group: Group, spare: _Card, _: Mapping[int, Group]) -> Group:
    return _with_labels(_with_rows(group, spare.on._replace(receive_call="y")), spare.label)


def _ago(days: float, seconds: int = 0) -> Callable[[int], int]:
    return lambda now: now - int(days * _DAY) + seconds


# Branch agents with a part to play; the others are dealt to groups at random.
_IDLE, _MUTED, _BUSY, _KEY = range(4)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a group differs from a healthy one."""

    rules: tuple[str, ...] = ()
    receivers: int | None = None
    muted: int | None = None
    lead: int | None = None  # a part from above, who receives besides the receivers
    status: int = 1
    name: str | None = None
    created: Callable[[int], int] | None = None
    twist: _Twist | None = None


_HEALTHY = _Plan()
_NOBODY = _Plan(("G002",), receivers=0, muted=4)
_SOLE = _Plan(("G003",), receivers=1, muted=2)
_EMPTY = _Plan(("G001",), receivers=0, muted=0, created=_ago(10))
_STALE_LABEL = _Plan(("R004",), twist=_stale_label)

# Groups 1, 2, 3 and 28 are built apart: all hands, the owner's two teams, the vendor's example.
_PLANS: dict[int, _Plan] = {
    4: _EMPTY,
    5: _NOBODY,
    6: _Plan(("G003",), receivers=0, muted=2, lead=_KEY),
    7: _Plan(("G003",), receivers=0, muted=2, lead=_KEY),
    8: _Plan(("G004",), receivers=2, muted=1),
    9: _Plan(("G005",), receivers=3, muted=5),
    10: _Plan(("G006",), status=0),
    11: _Plan(("G008",), receivers=0, muted=0, status=0, created=_ago(400)),
    12: _Plan(("G009",), lead=_BUSY, created=lambda _: 0),
    13: _Plan(("G009",), lead=_BUSY, created=_ago(-30)),
    14: _Plan(("G009",), lead=_BUSY, created=lambda now: (now - 200 * _DAY) * 1000),
    15: _Plan(("N001",), lead=_BUSY, name="Billing Mumbai"),
    16: _Plan(("N001",), lead=_BUSY, name="BILLING Mumbai"),
    17: _Plan(("N002",), lead=_BUSY, name="Renewals Pune", created=_ago(120)),
    18: _Plan(("N002",), lead=_BUSY, name="Renewals Pune1", created=_ago(120, seconds=31)),
    19: _Plan(("N003",), lead=_BUSY, name="  "),
    20: _Plan(("N003",), lead=_BUSY, name=" Escalations Goa"),
    21: _Plan(("N003",), lead=_BUSY, name="Refunds\tKochi"),
    22: _Plan(("N004",), receivers=4),
    23: _Plan(("N004",), receivers=0, muted=0, twist=_same_receivers),
    24: _Plan(("R001",), twist=_unknown_agents),
    25: _Plan(("R002",), twist=_wrong_group),
    26: _Plan(("R003",), twist=_doubled_relation),
    27: _Plan(("R003",), twist=_conflicting_relation, receivers=4),
    29: _STALE_LABEL,
    30: _Plan(("R004",), twist=_missing_label),
    31: _Plan(("R005",), twist=_foreign_tenant),
    32: _Plan(("R006",), twist=_bad_flag, receivers=4),
}
# The commonest faults come again in every further hundred of a larger account.
_RECURRING = {55: _NOBODY, 65: _SOLE, 75: _EMPTY, 85: _STALE_LABEL}
_NEED_TWO_GROUPS = frozenset({"N001", "N002", "N004"})


def _letters(number: int) -> str:
    """Count in letters: digits at a name's end would look like the server's own numbering."""
    word = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        word = chr(ord("A") + rest) + word
    return word


def _branch_roster(count: int, rng: random.Random) -> tuple[Agent, ...]:
    first = rng.sample(_FIRST_NAMES, len(_FIRST_NAMES))
    last = rng.sample(_LAST_NAMES, len(_LAST_NAMES))
    agents = []
    for i in range(count):
        row, column = divmod(i, len(first))
        lap, row = divmod(row, len(last))
        # Walking both lists at once keeps neighbours from sharing a surname; still one to one.
        surname = last[(row + column) % len(last)]
        middle = f" {_letters(lap - 1)}. " if lap else " "
        agents.append(Agent(_FIRST_BRANCH_AGENT + i, f"{first[column]}{middle}{surname}", BRANCH))
    return tuple(agents)


def _group_namer(rng: random.Random) -> Callable[[int], str]:
    cities = rng.sample(_CITIES, len(_CITIES))
    departments = rng.sample(_DEPARTMENTS, len(_DEPARTMENTS))

    def name(number: int) -> str:
        row, column = divmod(number, len(departments))
        lap, row = divmod(row, len(cities))
        city = cities[(row + column) % len(cities)]
        return f"{city} {departments[column]}" + (f" team {_letters(lap - 1)}" if lap else "")

    return name


def _cards(roster: Sequence[Agent]) -> list[_Card]:
    return [
        _Card(
            agent.unique_id,
            agent.label,
            Relation(agent.unique_id, "Y", agent.user_id),
            Relation(agent.unique_id, "N", agent.user_id),
        )
        for agent in roster
    ]


def _staffed(group: Group, on: Sequence[_Card], off: Sequence[_Card] = ()) -> Group:
    return group._replace(
        relations=(*(card.on for card in on), *(card.off for card in off)),
        labels=(*(card.label for card in on), *(card.label for card in off)),
    )


def _agent_faults(
    groups: Iterable[Group], rosters: Mapping[str, tuple[Agent, ...]]
) -> dict[str, tuple[int, ...]]:
    """What the groups amount to for the agents of every roster that a reply shows."""
    members: set[int] = set()
    receives: Counter[int] = Counter()
    sole: Counter[int] = Counter()
    users: set[str] = set()
    for group in groups:
        rows = [row for row in group.relations if row.group_id is None]
        receivers = {row.agent_id for row in rows if row.receive_call == "Y"}
        users.add(group.user_id)
        members.update(row.agent_id for row in rows)
        receives.update(receivers)
        if group.status == 1 and len(receivers) == 1:
            sole.update(receivers)
    roster = [agent for user in sorted(users) for agent in rosters[user]]
    names = Counter(agent.name for agent in roster)
    ids = [agent.unique_id for agent in roster]
    return {
        "A001": tuple(i for i in ids if i not in members),
        "A002": tuple(i for i in ids if i in members and not receives[i]),
        "A003": tuple(i for i in ids if receives[i] > _OVERLOADED_ABOVE),
        "A004": tuple(i for i in ids if sole[i] > 1),
        "A005": tuple(agent.unique_id for agent in roster if names[agent.name] > 1),
    }


def demo_account(groups: int, agents: int, seed: int, now: int) -> DemoAccount:
    """Build the demo account, the same for the same arguments.

    Args:
        groups: how many groups; 0 leaves the account empty, 1 is the vendor's example alone.
        agents: how many agents the larger roster has, at least 60.
        seed: names, members and dates follow from it.
        now: Unix seconds that create dates are placed before; the example group keeps its own.

    Raises:
        ValueError: ``groups`` is negative or ``agents`` is below 60.
    """
    integer("groups", groups, 0)
    integer("agents", agents, _MIN_AGENTS)
    if groups == 0:
        return DemoAccount({}, {}, {})
    rng = random.Random(seed)  # noqa: S311 - demo data
    rosters = {
        OWNER: tuple(Agent(agent_id, name, OWNER) for agent_id, name in _VENDOR_ROSTER),
        BRANCH: _branch_roster(agents, rng),
    }
    name_of = _group_namer(rng)
    owner_cards = {card.agent_id: card for card in _cards(rosters[OWNER])}
    team = [card for card in owner_cards.values() if card.agent_id not in _VENDOR_MEMBERS]
    cards = _cards(rosters[BRANCH])
    receivers, others = _Deck(cards[_KEY + 1 :], rng), _Deck(cards[_KEY + 1 :], rng)
    teams: set[frozenset[int]] = set()
    built: dict[int, Group] = {}
    planted: defaultdict[str, list[int]] = defaultdict(list)

    def new(group_id: int, user_id: str, plan: _Plan) -> Group:
        age = rng.randrange(100 * _DAY, 1000 * _DAY)
        created = now - age if plan.created is None else plan.created(now)
        name = name_of(group_id) if plan.name is None else plan.name
        for rule in plan.rules:
            planted[rule].append(group_id)
        return Group(name, user_id, group_id, plan.status, created)

    def ids_of(hand: Iterable[_Card]) -> frozenset[int]:
        return frozenset(card.agent_id for card in hand)

    def branch_group(group_id: int, plan: _Plan) -> Group:
        on = receivers.deal(rng.randint(3, 4) if plan.receivers is None else plan.receivers)
        while len(on) > 1 and ids_of(on) in teams:  # the same team twice would be a fault
            on = receivers.deal(rng.randint(3, 5) if plan.receivers is None else plan.receivers)
        teams.add(ids_of(on))
        muted = rng.randint(0, 2) if plan.muted is None else plan.muted
        spare, *off = others.deal(1 + muted)
        while ids_of(on) & ids_of((spare, *off)):
            spare, *off = others.deal(1 + muted)
        lead = [] if plan.lead is None else [cards[plan.lead]]
        group = _staffed(new(group_id, BRANCH, plan), [*lead, *on], off)
        return group if plan.twist is None else plan.twist(group, spare, built)

    # The example comes first, then 1, 2, 3 ...: an account of n >= 28 groups has the ids 1 to n.
    first_ids = range(1, groups if groups < _VENDOR_GROUP_ID else groups + 1)
    for group_id in sorted({*first_ids, _VENDOR_GROUP_ID} if groups else ()):
        if group_id == 1:
            plan = _Plan(("G007",), name="All hands")
            everyone = [card for i, card in enumerate(cards) if i not in (_IDLE, _MUTED)]
            group = _staffed(new(1, BRANCH, plan), everyone, [cards[_MUTED]])
        elif group_id in (2, 3):
            half = team[: len(team) // 2] if group_id == 2 else team[len(team) // 2 :]
            group = _staffed(new(group_id, OWNER, _HEALTHY), half)
        elif group_id == _VENDOR_GROUP_ID:
            example = Group("Mahipal singh", OWNER, group_id, 1, _VENDOR_CREATE_DATE)
            group = _staffed(example, [owner_cards[agent_id] for agent_id in _VENDOR_MEMBERS])
        else:
            recurring = _RECURRING.get(group_id % 100, _HEALTHY)
            group = branch_group(group_id, _PLANS.get(group_id, recurring))
        built[group_id] = group

    found: dict[str, Sequence[int]] = {**planted}
    found |= _agent_faults(built.values(), rosters)
    return DemoAccount(
        groups=built,
        rosters=rosters,
        planted={
            rule: tuple(sorted(ids))
            for rule, ids in sorted(found.items())
            if len(ids) > (1 if rule in _NEED_TWO_GROUPS else 0)
        },
    )
