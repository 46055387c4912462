"""The pages of a fleet's accounts, as ``deepcall fleet`` writes them."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from deepcall_async import DeepCall, UserToken
from tests.support.command import called, environment

pytestmark = pytest.mark.deepcall_sandbox(groups=30)


def test_an_accounts_page_says_what_changed_since_its_last_record(deepcall_sandbox, tmp_path):
    server = deepcall_sandbox
    login = {"A_USER_ID": server.user_id, "A_TOKEN": server.token}
    env = environment(DEEPCALL_BASE_URL=server.base_url, **login)
    toml, folder = tmp_path / "fleet.toml", tmp_path / "audits"
    toml.write_text('[[account]]\nname = "acme & sons"\ncredentials = "env:A"\n')
    words = ("fleet", "audit", toml, "--folder", folder, "--again", "--quiet")
    outputs = ("-o", f"html:{tmp_path / 'fleet.html'}", "-o", "json:-")
    called(*words, *outputs, env=env)
    page = folder / "accounts" / "acme & sons.html"
    assert "No earlier run was given" in page.read_text()

    async def darken():
        login = UserToken(server.user_id, server.token)
        async with DeepCall(login, base_url=server.base_url) as dc:
            await dc.groups.assign_agents(28, [3, 8, 2])

    asyncio.run(darken())
    done = called(*words, *outputs, env=env)
    account = json.loads(done.stdout)["accounts"][0]
    assert account["new_dark_groups"] == 1
    told = page.read_text()
    assert "No earlier run was given" not in told
    assert "D001" in told
    # The page of the fleet and the account's own count the same.
    tiles = re.findall(r'<li class="(\w+)[^"]*"><b>(\d+)</b>', told)
    numbers = {severity: int(number) for severity, number in tiles}
    assert {each: numbers[each] for each in account["findings"]} == account["findings"]

    # What was not finished is compared with the last whole one.
    server.fail_next("getGroupAgentRelation", times=1, code=1000)
    called(*words, *outputs, env=env)
    assert (folder / "accounts" / "acme & sons.jsonl.part").exists()
    assert "No earlier run was given" not in page.read_text()
