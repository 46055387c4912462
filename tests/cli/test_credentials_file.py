"""Where the command takes credentials and the address from, and that they never part ways."""

from __future__ import annotations

import sys

import pytest

from deepcall_async import SessionId, UserToken
from deepcall_async.options import credentials_in, referenced_credentials
from tests.support.command import called as deepcall
from tests.support.command import deepcall as in_a_process
from tests.support.command import environment

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


SHOW = ("groups", "show", "28", "--timeout", "5")


def lines(server, *more):
    return "\n".join(
        [f"DEEPCALL_USER_ID={server.user_id}", f"DEEPCALL_TOKEN={server.token}", *more, ""]
    )


def test_the_base_url_of_a_credentials_file_counts(deepcall_sandbox, tmp_path):
    file = tmp_path / "brand.env"
    file.write_text(lines(deepcall_sandbox, f"DEEPCALL_BASE_URL={deepcall_sandbox.base_url}"))
    done = deepcall(*SHOW, "--credentials", file)
    assert done.returncode == 0
    assert "bhawesh" in done.stdout
    # It comes before the environment's, which belongs to other credentials.
    done = deepcall(
        *SHOW, "--credentials", file, env=environment(DEEPCALL_BASE_URL="https://x.invalid")
    )
    assert done.returncode == 0
    # And an option before both.
    done = deepcall(*SHOW, "--credentials", file, "--base-url", "http://127.0.0.1:1")
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr


@pytest.mark.parametrize("name", ["--credentials", "env"])
def test_a_bad_base_url_is_named_with_where_it_stands(name, deepcall_sandbox, tmp_path):
    file = tmp_path / "brand.env"
    file.write_text(lines(deepcall_sandbox, "DEEPCALL_BASE_URL=ftp://brand.example"))
    if name == "env":
        done = deepcall(*SHOW, env=environment(deepcall_sandbox, DEEPCALL_BASE_URL="nonsense"))
        assert "DEEPCALL_BASE_URL: base_url must be like" in done.stderr
    else:
        done = deepcall(*SHOW, "--credentials", file)
        assert f"--credentials {file}: base_url must be like" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    "content",
    [
        "DEEPCALL_SSID=abc-123\n",
        "export DEEPCALL_SSID='abc-123'\n",
        'DEEPCALL_SSID="abc-123" # prod\n',
        "# comment\n\nDEEPCALL_SSID=abc-123 # prod\nOTHER=1\n",
        "\ufeffDEEPCALL_SSID=abc-123\r\n",
        "DEEPCALL_SSID = abc-123",
    ],
)
def test_a_credentials_file_is_read_as_people_write_it(content):
    assert credentials_in(content.encode(), "f").credentials == SessionId("abc-123")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "f holds no credentials"),
        (b"DEEPCALL_USER_ID=1\n", "f holds DEEPCALL_USER_ID but not DEEPCALL_TOKEN"),
        (b"DEEPCALL_SSID=\xff\n", "f: is not UTF-8"),
        ("DEEPCALL_SSID=hush".encode("utf-16"), "f: is not UTF-8"),
        (b"DEEPCALL_SSID='hush\n", "f: line 1 is not NAME=VALUE"),
        (b"X=1\n'hush'hush\n", "f: line 2 is not NAME=VALUE"),
    ],
)
def test_what_is_wrong_with_a_credentials_file_is_said_without_a_secret(content, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its message is what is tested)
        credentials_in(content, "f")
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_mutes_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "mutes.toml"
    file.write_bytes(b'\xef\xbb\xbf[[mute]]\nrule = "G002"\ngroup = 5\nreason = "closing"\n')
    done = deepcall("audit", "--sandbox", "40", "--mutes", file, "--rules", "G002")
    assert done.returncode == 0
    file.write_bytes(b"\xff\xfe")
    done = deepcall("audit", "--sandbox", "40", "--mutes", file)
    assert done.returncode == 2
    assert f"{file}: is not UTF-8" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_a_file_that_others_can_read_is_warned_about(deepcall_sandbox, tmp_path):
    file = tmp_path / "brand.env"
    file.write_text(lines(deepcall_sandbox, f"DEEPCALL_BASE_URL={deepcall_sandbox.base_url}"))
    file.chmod(0o644)
    assert f"others can read {file}: chmod 600" in deepcall(*SHOW, "--credentials", file).stderr
    file.chmod(0o600)
    assert deepcall(*SHOW, "--credentials", file).stderr == ""


def profile(tmp_path, text, name="config.toml"):
    folder = tmp_path / "config" / "deepcall"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o600)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}


linux = pytest.mark.skipif(sys.platform != "linux", reason="the folder is another elsewhere")


@linux
def test_a_profile_with_each_kind_of_reference(deepcall_sandbox, tmp_path):
    url = deepcall_sandbox.base_url
    home = profile(
        tmp_path,
        f'[profile.default]\nbase_url = "{url}"\ncredentials = "file:secrets.env"\n'
        f'[profile.acme]\nbase_url = "{url}"\ncredentials = "env:ACME"\n',
    )
    profile(tmp_path, lines(deepcall_sandbox), "secrets.env")
    assert deepcall(*SHOW, env=environment(**home)).returncode == 0
    acme = {"ACME_USER_ID": deepcall_sandbox.user_id, "ACME_TOKEN": deepcall_sandbox.token}
    assert deepcall(*SHOW, "--profile", "acme", env=environment(**home, **acme)).returncode == 0
    done = deepcall(*SHOW, "--profile", "acme", env=environment(**home))
    assert done.returncode == 2
    assert "ACME_USER_ID" in done.stderr
    done = deepcall(*SHOW, "--profile", "acne", env=environment(**home))
    assert done.returncode == 2
    assert "did you mean acme?" in done.stderr


@linux
def test_the_environment_comes_before_the_profile_and_an_option_before_both(
    deepcall_sandbox, tmp_path
):
    home = profile(tmp_path, '[profile.default]\nbase_url = "https://brand.invalid"\n')
    done = deepcall("check", env=environment(deepcall_sandbox, **home))
    assert done.returncode == 0
    assert f"{deepcall_sandbox.base_url}, from DEEPCALL_BASE_URL" in done.stdout
    option = ("--base-url", deepcall_sandbox.base_url)
    env = environment(deepcall_sandbox, **home) | {"DEEPCALL_BASE_URL": "https://x.invalid"}
    assert "from --base-url" in deepcall("check", *option, env=env).stdout


@linux
def test_the_credentials_of_one_place_do_not_go_to_the_address_of_another(
    deepcall_sandbox, tmp_path
):
    url = deepcall_sandbox.base_url
    home = profile(tmp_path, f'[profile.default]\nbase_url = "{url}"\ncredentials = "env:ACME"\n')
    env = environment(DEEPCALL_SSID="of-another-brand", **home)
    done = deepcall(*SHOW, env=env)
    assert done.returncode == 2
    assert "would be sent to the address of profile default" in done.stderr
    env = environment(ACME_SSID="of-acme", DEEPCALL_BASE_URL="https://x.invalid", **home)
    done = deepcall(*SHOW, env=env)
    assert done.returncode == 2
    assert "to another address than its own" in done.stderr
    assert not deepcall_sandbox.requests


@linux
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profile.default]\nbase_uri = 'x'\n", "base_uri"),
        ("[profile.default]\ncredentials = 'hush-hush'\n", "env:ACME, file:acme.env"),
        ("[profile.default\n", "line 1"),
        ("[profile.default]\ncredentials = 'file:none.env'\n", "none.env"),
    ],
)
def test_what_is_wrong_with_the_profiles_is_said(text, said, tmp_path):
    done = deepcall(*SHOW, env=environment(**profile(tmp_path, text)))
    assert done.returncode == 2
    assert said in done.stderr
    assert "config.toml" in done.stderr
    assert "hush" not in done.stderr


@linux
def test_profiles_that_others_can_read_are_warned_about(deepcall_sandbox, tmp_path):
    home = profile(tmp_path, "[profile.default]\n")
    (tmp_path / "config" / "deepcall" / "config.toml").chmod(0o644)
    done = deepcall(*SHOW, env=environment(deepcall_sandbox, **home))
    assert done.returncode == 0
    assert "config.toml: chmod 600" in done.stderr


class TestReferences:
    def test_the_environment(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ACME_USER_ID", "1")
        monkeypatch.setenv("ACME_TOKEN", "abc")
        monkeypatch.setenv("ACME_BASE_URL", "https://acme.example")
        found = referenced_credentials("env:ACME", tmp_path)
        assert found == (UserToken("1", "abc"), "https://acme.example")
        assert "abc" not in repr(found)

    def test_a_file_is_relative_to_the_folder(self, tmp_path):
        (tmp_path / "acme.env").write_text("DEEPCALL_SSID=abc\n")
        found = referenced_credentials("file:acme.env", tmp_path)
        assert found == (SessionId("abc"), None)
        absolute = referenced_credentials(f"file:{tmp_path / 'acme.env'}", tmp_path / "other")
        assert absolute == found

    def test_the_keyring(self, monkeypatch, tmp_path):
        import keyring
        import keyring.backend

        class Ring(keyring.backend.KeyringBackend):
            priority = 1

            def get_password(self, service, username):
                return {("deepcall", "29791451"): "abc"}.get((service, username))

            def set_password(self, service, username, password): ...

            def delete_password(self, service, username): ...

        before = keyring.get_keyring()
        keyring.set_keyring(Ring())
        try:
            found = referenced_credentials("keyring:deepcall/29791451", tmp_path)
            assert found == (UserToken("29791451", "abc"), None)
            with pytest.raises(ValueError, match="keyring set deepcall 1"):
                referenced_credentials("keyring:deepcall/1", tmp_path)
        finally:
            keyring.set_keyring(before)

    @pytest.mark.parametrize(
        "reference",
        ["", "hush", "env:", "env:A-B", "file:", "keyring:hush", "vault:hush", "env:A B"],
    )
    def test_a_malformed_one_is_not_quoted(self, reference, tmp_path):
        with pytest.raises(ValueError, match="env:ACME") as caught:
            referenced_credentials(reference, tmp_path)
        assert "hush" not in str(caught.value)

    def test_no_local_of_a_traceback_holds_the_secret(self, tmp_path):
        import traceback

        (tmp_path / "acme.env").write_text("DEEPCALL_SSID=hush-hush\nDEEPCALL_TOKEN=hush-hush\n")
        with pytest.raises(ValueError, match="both kinds") as caught:
            referenced_credentials("file:acme.env", tmp_path)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [frame for frame in shown.stack if "deepcall_async" in frame.filename]
        assert ours
        assert "hush" not in "".join(str(frame.locals) for frame in ours)


def test_a_proxy_of_the_environment_is_used(deepcall_sandbox):
    # Nothing listens there: that it is asked is shown by its refusal.
    env = environment(deepcall_sandbox, http_proxy="http://127.0.0.1:9", no_proxy="", NO_PROXY="")
    done = deepcall(*SHOW, env=env)
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr
    env["no_proxy"] = "127.0.0.1"
    assert deepcall(*SHOW, env=env).returncode == 0
    done = in_a_process(*SHOW, "--proxy", "http://user:hush@127.0.0.1:9", env=env)
    assert done.returncode == 3
    assert "hush" not in done.stderr
    shown = deepcall("check", env=env | {"no_proxy": "x"}).stdout.splitlines()
    sources = [line for line in shown if line.startswith("ok") and "from the environment" in line]
    assert [line.split()[1] for line in sources] == ["credentials", "proxy"]


@pytest.mark.parametrize("option", ["--ca", "--cert"])
def test_a_certificate_that_cannot_be_read_is_named(option, deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    done = deepcall(*SHOW, option, tmp_path / "none.pem", env=env)
    assert done.returncode == 2
    assert f"{tmp_path / 'none.pem'}: no such file" in done.stderr
    (tmp_path / "bad.pem").write_text("nonsense")
    done = deepcall(*SHOW, option, tmp_path / "bad.pem", env=env)
    assert done.returncode == 2
    assert f"{tmp_path / 'bad.pem'}: " in done.stderr
    assert "PEM" in done.stderr


def test_credentials_from_stdin(deepcall_sandbox):
    env = environment(DEEPCALL_BASE_URL=deepcall_sandbox.base_url)
    done = deepcall(*SHOW, "--credentials", "-", env=env, input=lines(deepcall_sandbox))
    assert done.returncode == 0
    done = deepcall(*SHOW, "--credentials", "-", env=env, input="")
    assert done.returncode == 2
    assert "stdin holds no credentials" in done.stderr
