"""Makes parts of the reference from the code.

`python -m tests.docs.generate` writes them into the pages; a test compares them.
"""

from collections.abc import Callable, Iterator

import click
import msgspec

import api
from api.commands.penstock import main as penstock
from api.metrics import Figures, page_of
from api.openapi.document import operations_of
from api.openapi.operations import CODES_OF_READS, OPERATIONS, PROBLEMS, Operation
from projector import TenantStatus
from streams.runtime import Settings
from tests.support.documentation import DOCS, generated, with_generated


def lines_of(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def cell(text: str) -> str:
    """Text on one line that a cell of a table may hold."""
    return " ".join(text.split()).replace("|", "\\|")


# -- commands ------------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command: its usage, its help, its options."""
    return "".join(text for name, command in leaves() for text in _command(name, command))


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Every command and group, by the name that a person types."""
    yield from _walk("penstock", penstock)


def _walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for child_name, child in children_of(command):
        yield from _walk(f"{name} {child_name}", child)


def children_of(command: click.Command) -> list[tuple[str, click.Command]]:
    """The commands of a group, by name; none of a command."""
    if not isinstance(command, click.Group):
        return []
    context = click.Context(command)
    children = ((name, command.get_command(context, name)) for name in sorted(command.list_commands(context)))
    return [(name, child) for name, child in children if child]


def _command(name: str, command: click.Command) -> Iterator[str]:
    level = "##" if name.count(" ") <= 1 else "###"
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield lines_of(f"{level} `{name}`", "", "```text", usage, "```", "")
    for paragraph in (command.help or "").split("\n\n"):
        yield lines_of(cell(paragraph).replace("\\|", "|"), "")
    records = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    if records := [record for record in records if record]:
        yield lines_of("| option | what it does |", "|---|---|")
        yield lines_of(*(f"| `{cell(option)}` | {cell(text)} |" for option, text in records), "")
    if children := children_of(command):
        yield lines_of("| command | what it does |", "|---|---|")
        for child_name, child in children:
            summary = cell((child.help or "").split("\n\n")[0])
            yield lines_of(f"| `{name} {child_name}` | {summary} |")
        yield "\n"


# -- HTTP ----------------------------------------------------------------------------------------------------------------

SETTINGS = msgspec.structs.asdict(Settings())


def native_routes() -> str:
    """Every route of Penstock's own API."""
    return _routes(is_foreign=False)


def foreign_routes() -> str:
    """Every route of foreign SDKs."""
    return _routes(is_foreign=True)


def _routes(*, is_foreign: bool) -> str:
    rows = [f"| `{name}` | {_summary(operation)} |" for name, operation in operations() if operation.is_foreign == is_foreign]
    return lines_of("| route | what it does |", "|---|---|", *rows, "")


def operations() -> list[tuple[str, Operation]]:
    """Every route with its operation, in the order of the application's list."""
    served = operations_of(api.ROUTES)
    return [(name, OPERATIONS[name]) for name in (f"{method} {path}" for method, path in served)]


def native_operations() -> str:
    """The parameters and answers of Penstock's own API."""
    return "".join(
        lines_of(f"### `{name}`", "", _summary(operation), "") + _parameters(operation) + _answers(operation)
        for name, operation in operations()
        if not operation.is_foreign
    )


def _summary(operation: Operation) -> str:
    return cell(operation.summary.format_map(SETTINGS))


def _parameters(operation: Operation) -> str:
    if not operation.parameters:
        return ""
    rows = [
        f"| `{parameter.name}` | {parameter.location}{', required' if parameter.required else ''} | "
        f"{cell(parameter.description.format_map(SETTINGS))} |"
        for parameter in operation.parameters
    ]
    return lines_of("| parameter | in | what it is |", "|---|---|---|", *rows, "")


def _answers(operation: Operation) -> str:
    codes = {status: list(names) for status, names in operation.codes.items()}
    if operation.act == "read":
        for status, names in CODES_OF_READS.items():
            codes.setdefault(status, []).extend(names)
    rows = [
        f"| {status} | {_meaning(operation, status)} | {', '.join(f'`{name}`' for name in codes.get(status, ()))} |"
        for status in sorted({*operation.answers, *codes})
    ]
    return lines_of("| status | meaning | problem codes |", "|---|---|---|", *rows, "")


def _meaning(operation: Operation, status: int) -> str:
    answer = operation.answers.get(status)
    return cell(answer.meaning if answer else PROBLEMS[status][0])


# -- metrics -------------------------------------------------------------------------------------------------------------


def metrics() -> str:
    """Every metric of ours, its type, labels and help."""
    tenant = msgspec.convert(dict.fromkeys(TenantStatus.__struct_fields__, 0) | {"tenant": "acme", "stuck": None}, TenantStatus)
    text = page_of(Figures([tenant], {}, 0, 0)).decode()
    help_of, kind_of, labels_of = {}, {}, {}
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if line.startswith("# HELP penstock_"):
            _, _, name, words = line.split(" ", 3)
            help_of[name] = words
        elif line.startswith("# TYPE penstock_"):
            _, _, name, kind_of[name] = line.split(" ", 3)
        elif name in help_of:
            labels = line[len(name) :].partition("}")[0].removeprefix("{") if "{" in line else ""
            labels_of[name] = sorted(label.partition("=")[0] for label in labels.split(",") if label)
    rows = [
        f"| `{name}` | {kind_of[name]} | {', '.join(f'`{label}`' for label in labels_of[name]) or '–'} | {cell(words)} |"
        for name, words in help_of.items()
    ]
    return lines_of("| metric | type | labels | what it is |", "|---|---|---|---|", *rows, "")


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "reference/commands.md": {"commands": commands},
    "reference/http-api.md": {
        "routes": native_routes,
        "foreign routes": foreign_routes,
        "operations": native_operations,
    },
    "reference/metrics.md": {"metrics": metrics},
}


def main() -> None:
    """Write all generated parts."""
    for page, parts in PARTS.items():
        text = (DOCS / page).read_text()
        for name, make in parts.items():
            text = with_generated(text, name, make())
        (DOCS / page).write_text(text)


def stale() -> list[str]:
    """The generated parts that are not what the code gives."""
    return [
        f"{page}: {name}"
        for page, parts in PARTS.items()
        for name, make in parts.items()
        if generated((DOCS / page).read_text(), name) != make()
    ]


if __name__ == "__main__":
    main()
