"""What a user might give by mistake: a secret as an argument, a file of settings as an output."""

from __future__ import annotations

import pytest
import trustme

from tests.support.command import called, environment


@pytest.mark.parametrize("option", ["--token", "--ssid", "--user-id"])
@pytest.mark.parametrize("joined", ["=", " "])
def test_a_secret_as_an_argument_is_refused_and_never_shown(option, joined):
    done = called("audit", *f"{option}{joined}hush-hush".split())
    assert done.returncode == 2
    assert f"there is no {option}" in done.stderr
    assert "--credentials FILE" in done.stderr
    assert "hush" not in done.stderr


def test_the_value_of_an_option_that_there_is_not_may_be_a_secret():
    done = called("audit", "--api-key=hush-hush")
    assert (done.returncode, done.stderr) == (2, "deepcall: Unknown option: --api-key.\n")


def test_settings_are_never_overwritten_by_an_output(deepcall_sandbox, tmp_path):
    folder = tmp_path / "deepcall"
    folder.mkdir()
    config, account, ca = (folder / name for name in ("config.toml", "acme.env", "ca.pem"))
    config.write_text('[profile.default]\ncredentials = "file:acme.env"\nca = "ca.pem"\n')
    account.write_text(
        f"DEEPCALL_BASE_URL={deepcall_sandbox.base_url}\n"
        f"DEEPCALL_USER_ID={deepcall_sandbox.user_id}\nDEEPCALL_TOKEN={deepcall_sandbox.token}\n"
    )
    trustme.CA().cert_pem.write_to_path(ca)
    for file in (config, account, ca):
        file.chmod(0o600)
    before = [file.read_text() for file in (config, account, ca)]
    env = environment(XDG_CONFIG_HOME=str(tmp_path))
    for file, said in (
        (config, "the profiles"),
        (account, "credentials of profile default"),
        (ca, "ca of profile default"),
    ):
        done = called("audit", "-o", f"csv:{file}", env=env)
        assert done.returncode == 2, done.stderr
        assert f"-o csv:{file} would overwrite the file of {said}" in done.stderr
    assert [file.read_text() for file in (config, account, ca)] == before
    assert called("audit", "5", "-q", env=env).returncode == 1


def test_nor_are_those_of_a_fleet(tmp_path):
    fleet, account = tmp_path / "fleet.toml", tmp_path / "acme.env"
    fleet.write_text('[[account]]\nname = "acme"\ncredentials = "file:acme.env"\n')
    account.write_text("DEEPCALL_SSID=x\n")
    for file, said in ((fleet, "ACCOUNTS"), (account, "account acme")):
        done = called("fleet", "audit", fleet, "--folder", tmp_path, "-o", f"csv:{file}")
        assert done.returncode == 2
        assert f"-o csv:{file} would overwrite the file of {said}" in done.stderr
    assert account.read_text() == "DEEPCALL_SSID=x\n"


def test_a_shell_that_is_not_known_is_wrong_usage(tmp_path):
    env = environment(HOME=str(tmp_path), SHELL="", PATH=str(tmp_path))
    # Its parent is no shell either, or there is no `ps` to find out.
    done = called("--install-completion", env=env)
    assert done.returncode == 2
    assert "--shell" in done.stderr
    assert not any(tmp_path.iterdir())


def test_completion_for_fish_is_installed_where_fish_looks(tmp_path):
    env = environment(HOME=str(tmp_path / "home"), XDG_CONFIG_HOME=str(tmp_path / "settings"))
    done = called("--install-completion", "--shell", "fish", env=env)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "settings" / "fish" / "completions" / "deepcall.fish"
    assert str(file) in done.stdout
    assert "nightly" in file.read_text()
    assert not (tmp_path / "home").exists()
