"""The options that speak of the connection: checked by every command, and honoured by the demo."""

from __future__ import annotations

import pytest

from deepcall_async.cli.connect import open_sandbox
from deepcall_async.cli.parameters import ConnectOptions
from tests.support.command import called, environment

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("command", "option", "value", "limits"),
    [
        (("audit",), "--timeout", "nan", "from 0.001 to 86,400 seconds, not nan"),
        (("audit", "--sandbox", "40"), "--timeout", "-1", "from 0.001 to 86,400 seconds, not -1"),
        (("audit", "--sandbox", "40"), "--max-response-mib", "0", "from 1 to 4,096, not 0"),
        (("groups", "list"), "--timeout", "0", "from 0.001 to 86,400 seconds, not 0"),
        (("check",), "--timeout", "inf", "from 0.001 to 86,400 seconds, not inf"),
        (("probe",), "--max-response-mib", "4097", "from 1 to 4,096, not 4,097"),
    ],
)
def test_a_number_out_of_range_is_refused_in_the_options_own_words(command, option, value, limits):
    env = environment(DEEPCALL_BASE_URL="http://127.0.0.1:1", DEEPCALL_SSID="abc")
    done = called(*command, option, value, env=env)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"deepcall: {option} must be {limits}\n"


def test_a_round_limit_is_told_in_digits():
    done = called("audit", "--sandbox", "40", "--rate", "2000000")
    assert done.stderr == "deepcall: --rate must be from 0.001 to 1,000,000, not 2,000,000\n"


async def test_the_demo_keeps_to_the_timeout_and_the_largest_reply():
    async with open_sandbox(0, ConnectOptions(timeout=7.0, max_response_mib=3)) as target:
        assert (target.timeout, target.max_response_mib) == (7.0, 3)
