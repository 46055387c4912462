"""Structs where other libraries take types: FastAPI's annotations, Pydantic's fields, Litestar."""

from __future__ import annotations

import pytest

from deepcall_async import Agent, AgentRelation, Group, GroupAgentRelation, Member

GROUP = Group(unique_id=28, name="Sales", agents=("#3 Asha",))
RELATION = GroupAgentRelation(
    GROUP,
    (Agent(unique_id=3, name="Asha"),),
    (
        AgentRelation(group_id=28, agent_id=3, receive_call="Y"),
        AgentRelation(group_id=28, agent_id=4, receive_call="N"),
    ),
)


def test_to_dict_holds_the_data_and_the_joins() -> None:
    asha = {"unique_id": 3, "name": "Asha", "user_id": None}
    plain = RELATION.to_dict()
    assert list(plain) == [
        *("group", "agents", "relations"),
        *("members", "receivers", "unknown_agent_ids"),
    ]
    assert plain["group"]["name"] == "Sales"
    assert plain["agents"] == (asha,)
    assert plain["receivers"] == ({"agent_id": 3, "agent": asha, "receives_calls": True},)
    assert plain["members"][1] == {"agent_id": 4, "agent": None, "receives_calls": False}
    assert plain["unknown_agent_ids"] == (4,)


def test_pydantic_validates_and_serializes_them() -> None:
    pydantic = pytest.importorskip("pydantic", reason="not installed: extra `recipes`")
    model = pydantic.create_model("M", relation=GroupAgentRelation, member=(Member | None, None))
    made = model(relation=RELATION)
    assert made.relation is RELATION
    again = model.model_validate_json(made.model_dump_json())
    assert again.relation == RELATION
    assert model(relation=RELATION, member={"agent_id": 1, "agent": None, "receives_calls": True})
    with pytest.raises(pydantic.ValidationError, match=r"Expected `int`, got `str`") as raised:
        model.model_validate(
            {"relation": {"group": {"unique_id": "x", "name": ""}, "agents": [], "relations": []}}
        )
    assert raised.value.errors()[0]["loc"] == ("relation",)
    for mode in ("validation", "serialization"):
        schema = model.model_json_schema(mode=mode)["properties"]["relation"]
        assert schema["required"] == ["group", "agents", "relations"]
        assert schema["properties"]["group"]["title"] == "Group"
