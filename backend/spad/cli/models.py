"""`spad models list | show | import | export`: the named models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spad import jsonfile
from spad.checkpoints import zoo
from spad.checkpoints.importers import AS_KINDS, import_file
from spad.cli.tables import table
from spad.errors import SpadError

OWN = "spad"
_COLUMNS = ("name", "kind", "modalities", "origin", "mb", "licence")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=summary, description=summary)

    listing = action("list", "List the known models.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    show = action("show", "Show what a model is: contracts, labels, provenance, licence, figures.")
    show.add_argument("name", metavar="NAME", help="a name of the list or a model file")
    bring = action("import", "Bring in a model file under a name.")
    bring.add_argument("file", type=Path, metavar="FILE")
    bring.add_argument(
        "--as",
        dest="kind",
        required=True,
        choices=(OWN, *AS_KINDS),
        metavar="KIND",
        help=f"what the file is: {', '.join((OWN, *AS_KINDS))} ({OWN}: exported by spad)",
    )
    bring.add_argument("--name", required=True, metavar="NAME", help="a new name")
    export = action("export", "Write a model to a file.")
    export.add_argument("name", metavar="NAME", help="a name of the list")
    export.add_argument("file", type=Path, metavar="FILE")


def run(options: argparse.Namespace) -> None:
    """Carry out one action."""
    if options.action == "list":
        entries = zoo.models()
        plain = [_plain(entry) for entry in entries]
        print(jsonfile.dumps(plain) if options.json else _list(plain))
    elif options.action == "show":
        print(_show(zoo.find(options.name)))
    elif options.action == "import":
        _import(options.file, options.kind, options.name)
    else:
        print(zoo.export(options.name, options.file))


def _import(file: Path, kind: str, name: str) -> None:
    if not file.exists():
        raise SpadError(f"{file} does not exist; expected a model file; check the path.")
    if kind == OWN:
        entry = zoo.install(file, name)
        print(f"{entry.name}: {entry.path}")
    else:
        entry, report = import_file(file, kind, name)
        print(f"{entry.name}: {entry.path}\nweights: {report}")


def _list(models: list[dict[str, Any]]) -> str:
    if not models:
        return "There are no models; train one, or import one with `spad models import`."
    header = ["name", "kind", "for", "origin", "MB", "licence"]
    rows = []
    for model in models:
        name, kind, modalities, origin, mb, licence = (model[key] for key in _COLUMNS)
        rows.append([name, kind, ", ".join(modalities), origin, f"{mb:.1f}", licence])
    return table(header, rows, right=[4])


def _plain(entry: zoo.Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "origin": entry.origin,
        "path": entry.path,
        "mb": entry.path.stat().st_size / 1e6,
        "modalities": ["any" if name == "*" else name for name in entry.card.intensity],
        "labels": {str(number): name for number, name in entry.card.labels.items()},
        "licence": entry.card.licence,
    }


def _show(entry: zoo.Entry) -> str:
    import yaml

    facts = {"name": entry.name, "origin": entry.origin, "path": str(entry.path)}
    text = yaml.safe_dump(facts | entry.card.to_json(), sort_keys=False, allow_unicode=True)
    return text.rstrip()
