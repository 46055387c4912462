"""``check`` says what to mend; ``probe`` tells keys and types, and not one value."""

from __future__ import annotations

import json
import ssl
import threading

import pytest
import trustme

from deepcall_async.cli.service import shape
from tests.support.command import called as deepcall
from tests.support.command import environment

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


def test_check_says_step_by_step_that_all_is_well(deepcall_sandbox):
    done = deepcall("check", env=environment(deepcall_sandbox))
    assert done.returncode == 0
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())
    assert "user id and token, from the environment" in done.stdout
    assert "40 listed" in done.stdout
    assert deepcall_sandbox.token not in done.stdout


@pytest.mark.parametrize(
    ("env", "code", "said"),
    [
        ({}, 2, "FAIL  settings"),
        ({"DEEPCALL_SSID": "x", "DEEPCALL_BASE_URL": "https://brand.invalid"}, 3, "FAIL  host"),
        ({"DEEPCALL_SSID": "x", "DEEPCALL_BASE_URL": "http://127.0.0.1:1"}, 3, "FAIL  connection"),
        ({"DEEPCALL_SSID": "x", "DEEPCALL_BASE_URL": "https://127.0.0.1:1"}, 3, "127.0.0.1:1"),
    ],
)
def test_check_says_what_is_wrong(env, code, said):
    done = deepcall("check", "--timeout", "5", env=environment(**env))
    assert done.returncode == code
    assert said in done.stdout
    assert "Traceback" not in done.stderr


def test_check_tells_a_wrong_address_and_a_missing_permission(deepcall_sandbox):
    deepcall_sandbox.agent_to_agent_call = False
    done = deepcall("check", env=environment(deepcall_sandbox))
    assert done.returncode == 3
    assert "FAIL  permission" in done.stdout
    assert "AGENT_TO_AGENT_CALL" in done.stdout
    env = environment(deepcall_sandbox, DEEPCALL_BASE_URL=f"{deepcall_sandbox.base_url}/wrong")
    done = deepcall("check", env=env)
    assert done.returncode == 3
    assert "the service's address?" in done.stdout


def test_check_tells_an_untrusted_certificate_and_a_plain_port(deepcall_sandbox, tmp_path):
    ca = trustme.CA()
    certificate = ca.issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for _ in range(2):
            try:
                connection, _ = listener.accept()
                with connection, context.wrap_socket(connection, server_side=True) as secure:
                    secure.recv(1)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    url = f"https://localhost:{listener.getsockname()[1]}"
    env = environment(DEEPCALL_SSID="x", DEEPCALL_BASE_URL=url)
    done = deepcall("check", "--timeout", "5", env=env)
    assert done.returncode == 3
    assert "FAIL  TLS" in done.stdout
    assert "give --ca FILE" in done.stdout
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    done = deepcall("check", "--timeout", "2", "--ca", tmp_path / "ca.pem", env=env)
    assert "ok    TLS" in done.stdout
    listener.close()
    plain = deepcall_sandbox.base_url.replace("http://", "https://")
    done = deepcall(
        "check", "--timeout", "5", env=environment(deepcall_sandbox, DEEPCALL_BASE_URL=plain)
    )
    assert done.returncode == 3
    assert "FAIL  TLS" in done.stdout


def test_probe_shows_the_shape_of_each_read_reply_and_no_value(deepcall_sandbox):
    done = deepcall("probe", env=environment(deepcall_sandbox))
    assert done.returncode == 0
    assert "list\n" in done.stdout
    assert "  $.response[].unique_id: integer" in done.stdout
    assert "  $.response.relationData[].receive_call: string" in done.stdout
    for value in ("Mahipal", "bhawesh", "29791451", "success", "Kumar", deepcall_sandbox.token):
        assert value not in done.stdout


def test_a_shape_holds_no_value_and_no_key_that_may_be_one():
    reply = json.loads(
        '{"status": "success", "code": "200", "response": {"28": {"name": "Asha", "Asha": 1},'
        ' "hush": [1, 2.5, null, true, "", "x", [], {}]}, "hush_hush": {"name": 5}}'
    )
    shown = "\n".join(shape(reply))
    assert "hush" not in shown
    assert "Asha" not in shown
    assert "28" not in shown
    assert "$.code: string of digits" in shown
    assert "$.response.<other key>.name: string" in shown
    assert (
        "boolean | empty array | empty object | empty string | integer | null | number | string"
        in shown
    )
