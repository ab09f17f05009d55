"""A wrong setting stops the start with one sentence.

The environment comes before `.env`, and `.env` before the defaults.
"""

from pathlib import Path

import pytest

from streams import Record
from streams.archive import Archive
from streams.runtime import SettingError, Settings, load_settings
from tests.support.commands import run

WRONG = [
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("PORT", "80.5"),
    ("SESSION_GAP_SECONDS", "0.5"),
    ("SESSION_GAP_SECONDS", "604801"),
    ("REDIS_URL", "http://localhost"),
    ("REDIS_URL", "localhost:6379"),
    ("DATABASE_URL", "mysql://localhost/x"),
    ("DATABASE_URL", "penstock.db"),
    ("DATA_DIR", "d" * 120),
    ("AUTH", "key"),
    ("AUTH", "OPEN"),
    ("ALLOW_OPEN_ACCESS", "maybe"),
    ("NEW_TENANTS_PER_SECOND", "0"),
    ("EVENTS_PER_SECOND", "-1"),
    ("BYTES_PER_SECOND", "1MB"),
    ("EVENTS_PER_DAY", "0.5"),
    ("ARCHIVE_URL", "/var/archive"),
    ("ARCHIVE_URL", "file://archive"),
    ("ARCHIVE_URL", "ftp://host/archive"),
    ("HOT_SECONDS", "-1"),
    ("HOT_RECORDS", "0"),
    ("CORS_ORIGINS", "shop.example"),
    ("CORS_ORIGINS", "https://shop.example/path"),
    ("CORS_ORIGINS", "https://*.example"),
    ("TRUSTED_PROXIES", "proxy"),
    ("TRUSTED_PROXIES", "10.0.0.1/8"),
    ("JWT_LEEWAY_SECONDS", "-1"),
    ("JWT_LEEWAY_SECONDS", "301"),
    ("DURABILITY", "sometimes"),
    ("DURABILITY", "ALWAYS"),
    ("EMBEDDED_SERVER_MEMORY_BYTES", "-1"),
    ("MIN_FREE_DISK_BYTES", "1GB"),
    ("DEDUP_WINDOW_SECONDS", "0"),
    ("DEDUP_WINDOW_SECONDS", "-5"),
    ("DEDUP_WINDOW_SECONDS", "nan"),
    ("DEDUP_WINDOW_SECONDS", "inf"),
    ("DEDUP_WINDOW_SECONDS", "a day"),
    ("MAX_EVENT_BYTES", "0"),
    ("MAX_EVENT_BYTES", "64KiB"),
    ("MAX_REQUEST_EVENTS", "0"),
    ("MAX_REQUEST_BYTES", "10"),
    ("APPEND_TIMEOUT_SECONDS", "0"),
    ("REQUEST_TIMEOUT_SECONDS", "nan"),
    ("READ_WAIT_TIMEOUT_SECONDS", "61"),
    ("MAX_CONNECTIONS_PER_ADDRESS", "0"),
    ("PROJECTOR_BATCH_RECORDS", "0"),
    ("PROJECTOR_BATCH_BYTES", "1"),
    ("LEASE_SECONDS", "0.1"),
    ("LEASE_SECONDS", "3600"),
    ("SQLITE_CACHE_MIB", "0"),
    ("LOG_FORMAT", "xml"),
    ("ACCESS_LOG", "maybe"),
]

UNUSABLE = [
    ("DATABASE_URL", "sqlite:///"),
    ("DATABASE_URL", "sqlite:///:memory:"),
    ("REDIS_URL", "redis://localhost:port"),
    ("REDIS_URL", "unix://"),
    ("DEDUP_WINDOW_SECONDS", "0.0001"),
]


def test_every_setting_has_a_default() -> None:
    settings = load_settings({})

    assert settings == Settings()
    assert (settings.host, settings.port, settings.durability) == ("127.0.0.1", 8000, "always")
    assert (settings.max_event_bytes, settings.max_request_events) == (64 * 1024, 1_000)
    assert settings.max_request_bytes == 5 * 1024 * 1024
    assert settings.dedup_window_seconds == 86_400
    assert settings.embedded


def test_the_embedded_server_and_the_tables_are_in_the_data_directory() -> None:
    settings = load_settings({"DATA_DIR": "/var/lib/penstock"})

    assert settings.log_url == "unix:///var/lib/penstock/server.sock"
    assert settings.tables_url == "sqlite:////var/lib/penstock/penstock.db"


def test_a_server_and_a_database_of_the_user_are_used() -> None:
    settings = load_settings({"REDIS_URL": "redis://log.example:6379/0", "DATABASE_URL": "sqlite:///t.db", "DATA_DIR": "d" * 120})

    assert not settings.embedded
    assert (settings.log_url, settings.tables_url) == ("redis://log.example:6379/0", "sqlite:///t.db")


def test_values_are_parsed_to_their_types() -> None:
    settings = load_settings({"PORT": "9000", "LEASE_SECONDS": "2.5", "DEDUP_WINDOW_SECONDS": "60", "DURABILITY": "everysec"})

    assert (settings.port, settings.lease_seconds, settings.dedup_window_seconds) == (9000, 2.5, 60.0)
    assert settings.durability == "everysec"


def test_an_empty_setting_is_the_default() -> None:
    assert load_settings({"PORT": "", "DATA_DIR": "", "REDIS_URL": ""}) == Settings()


def test_a_name_that_is_no_setting_is_ignored() -> None:
    assert load_settings({"PATH": "/bin", "PORTS": "many"}) == Settings()


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_refused_in_one_sentence_that_names_it(name: str, value: str) -> None:
    with pytest.raises(SettingError) as refused:
        load_settings({name: value})

    assert str(refused.value).startswith(f"Setting {name} ")
    assert value in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_a_setting_that_cannot_work_is_refused_at_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        load_settings({name: value})


@pytest.mark.parametrize(
    "variables", [{"AUTH": "keys", "METRICS_TOKEN": "too short"}, {"METRICS_TOKEN": "long enough, but AUTH is open"}]
)
def test_a_metrics_token_without_effect_is_refused_and_not_shown(variables: dict[str, str]) -> None:
    with pytest.raises(SettingError, match=r"^Setting METRICS_TOKEN ") as refused:
        load_settings(variables)

    assert variables["METRICS_TOKEN"] not in str(refused.value)


def test_every_setting_is_checked() -> None:
    unbounded = {"HOST", "METRICS_TOKEN"} | {
        name for name in Settings.__struct_encode_fields__ if name.startswith("JWT_")
    }  # checked by the API

    assert {name for name, _ in WRONG} | unbounded == set(Settings.__struct_encode_fields__)


def test_a_secret_is_not_printed(tmp_path: Path) -> None:
    secret = {"AUTH": "keys", "JWT_SECRET": "a secret of thirty-two bytes, or more"}
    printed = (
        run("streams", "settings", folder=tmp_path, **secret).stdout
        + run("streams", "settings", "JWT_SECRET", folder=tmp_path, **secret).stdout
    )

    assert "JWT_SECRET=***" in printed
    assert "thirty-two" not in printed


@pytest.mark.parametrize("user", [":geheim@", "user:geheim@", "geheim@", "user:ge@heim@"])
def test_a_password_in_an_address_is_not_printed(tmp_path: Path, user: str) -> None:
    printed = run("streams", "settings", folder=tmp_path, REDIS_URL=f"redis://{user}localhost:6379/1").stdout

    assert "REDIS_URL=redis://***@localhost:6379/1" in printed


def test_the_env_file_is_read_and_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.__struct_encode_fields__:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("# ours\nPORT=9001\nHOST='0.0.0.0'\nLEASE_SECONDS=3\n")
    monkeypatch.setenv("PORT", "9002")

    settings = load_settings()

    assert (settings.port, settings.host, settings.lease_seconds) == (9002, "0.0.0.0", 3.0)


def test_a_wrong_value_in_the_env_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=none\n")

    ended = run("streams", "settings", folder=tmp_path)

    assert ended.returncode == 1
    assert ended.stderr.startswith("Setting PORT ") and ended.stderr.count("\n") == 1


def test_the_settings_in_force_are_printed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATA_DIR=there\n")

    everything = run("streams", "settings", folder=tmp_path, PORT="9003").stdout.splitlines()
    port = run("streams", "settings", "PORT", folder=tmp_path, PORT="9003").stdout

    assert {line.split("=")[0] for line in everything} == set(Settings.__struct_encode_fields__)
    assert "PORT=9003" in everything and "DATA_DIR=there" in everything
    assert port == "9003\n"


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    ended = run("streams", "settings", "PROT", folder=tmp_path)

    assert ended.returncode == 1
    assert "no setting PROT" in ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("streams", "serve"),
        ("streams", "tail", "acme"),
        ("projector", "run"),
        ("projector", "rebuild"),
        ("projector", "rollback"),
        ("projector", "verify"),
        ("projector", "status"),
        ("api",),
    ],
    ids=" ".join,
)
def test_every_command_stops_at_a_wrong_setting(command: tuple[str, ...], tmp_path: Path) -> None:
    ended = run(*command, folder=tmp_path, LEASE_SECONDS="never")

    assert ended.returncode == 1
    assert ended.stderr.startswith("Setting LEASE_SECONDS ") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plain", "with space", "100%", "ä#?"])
def test_an_archive_in_any_directory_can_be_opened(tmp_path: Path, name: str) -> None:
    settings = load_settings({"DATA_DIR": str(tmp_path / name)})

    Archive(settings.archive).add("acme", [Record(1, 0, 1, b"x")])

    assert (tmp_path / name / "archive" / "tenant=acme" / "manifest.json").exists()
