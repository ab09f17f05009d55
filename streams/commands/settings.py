"""`penstock streams settings`: the settings in force."""

import click
import msgspec

from streams.errors import PenstockError
from streams.runtime.cli import run_command
from streams.runtime.settings import Settings, without_passwords

SECRETS = ("JWT_SECRET", "METRICS_TOKEN")
ADDRESSES = ("REDIS_URL", "DATABASE_URL", "ARCHIVE_URL", "JWT_JWKS_URL")  # an address may hold a password


class NoSuchSetting(PenstockError):
    """There is no setting of that name."""

    def __init__(self, name: str, names: list[str]) -> None:
        super().__init__(f"There is no setting {name}; there are {', '.join(names)}")


@click.command("settings")
@click.argument("name", required=False)
def settings_command(name: str | None) -> None:
    """Print every setting that is in force, or only NAME.

    Secrets, and passwords in addresses, are shown as ***.
    """

    async def show(settings: Settings) -> None:
        values = printable_settings(settings)
        if name is None:
            for key, value in values.items():
                print(f"{key}={value}")
        elif name in values:
            print(values[name])
        else:
            raise NoSuchSetting(name, list(values))

    run_command(show)


def printable_settings(settings: Settings) -> dict[str, object]:
    """Every setting by its name, without secrets."""
    values = {field.encode_name: getattr(settings, field.name) for field in msgspec.structs.fields(Settings)}
    values |= {key: "***" for key in SECRETS if values[key]}
    return values | {key: without_passwords(values[key]) for key in ADDRESSES}
