"""Entries of a configuration file compared with the database, and brought about.

Owns the order of the changes, what refers to what, and what may be removed. Does not own values: `tables.py` judges
them, and the models' own validation has the last word. Invariant: one transaction, one `bring_about` at a time; whoever
only looks does all of it too, and takes it back. Edits reach the claim as those of the admin do: it reads these tables,
and triggers on them tell the inbox.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import connection, transaction
from django.db.models import PROTECT

from llmjobs.configuration.reading import Configuration, Entry, listed, meant
from llmjobs.configuration.tables import TABLES, Row, Table, shown
from llmjobs.models import ApiKey, Client, Model
from llmjobs.models.pools import FALLBACKS_MAX

CREATE, CHANGE, REMOVE, KEEP = "create", "change", "remove", "keep"
Rows = dict[str, dict[str, Any]]  # by table, by name


class Refused(Exception):
    """Nothing was changed; `problems` says why, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Change:
    """`fields`: (key, value before, value after), as people write them. KEEP changes nothing: `note` says why."""

    verb: str
    table: str
    name: str
    fields: tuple[tuple[str, str, str], ...] = ()
    note: str = ""


def bring_about(asked: Configuration, *, is_pruned: bool = False, is_look: bool = False) -> list[Change]:
    """What changed, or with `is_look` would change, in the order in which it does.

    `is_pruned`: what the file does not name and nothing refers to goes. Raises Refused with all that is wrong.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtext('llmjobs.configure'))")
        rows = {name: _rows(table, asked) for name, table in TABLES.items()}
        if problems := asked.problems + list(_unresolved(asked, rows)) + list(_endless(asked)):
            raise Refused(problems)
        changes = [change for name in TABLES for change in _write(asked.entries[name], rows)]
        changes = _with_fallbacks(changes, asked, rows)
        if is_pruned:
            changes += _prune(asked)
        transaction.set_rollback(is_look)
    return changes


def _rows(table: Table, asked: Configuration) -> dict[str, Any]:
    """What the file names or refers to, by name; no_key: a submit that refers to one of them does not wait."""
    names = set(asked.named(table.name))
    for entries in asked.entries.values():
        for entry in entries:
            names |= {
                entry.values[key] for key, to in entry.table.references() if to == table.name and key in entry.values
            }
    found = table.model._default_manager.select_for_update(no_key=True, of=("self",)).filter(name__in=names - {None})
    return {row.name: row for row in found.select_related(*(key for key, _ in table.references())).order_by("pk")}


def _unresolved(asked: Configuration, rows: Rows) -> Iterator[str]:
    """What is missing of what is new, and names that neither the file nor the database has."""
    for table in TABLES.values():
        for entry in asked.entries[table.name]:
            for key in table.required:
                if key not in entry.values and entry.name not in rows[table.name] and not _is_told(asked, entry, key):
                    yield f"{entry.place}.{key}: expected one, since {table.name} {entry.name} is new, got none"
            for key, to in table.references():
                name = entry.values.get(key)
                if name is not None and name not in rows[to] and name not in asked.named(to):
                    known = {
                        *asked.named(to),
                        *TABLES[to].model._default_manager.values_list("name", flat=True)[:1_000],
                    }
                    expected = f"expected one of the {to}s {listed(known)}, got {name!r}"
                    yield f"{entry.place}.{key}: {expected}{meant(name, known)}"


def _is_told(asked: Configuration, entry: Entry, key: str) -> bool:
    """Whether something is said to be wrong with it already."""
    return any(problem.startswith(f"{entry.place}.{key}:") for problem in asked.problems)


def _endless(asked: Configuration) -> Iterator[str]:
    """Fallbacks that lead back, through the file and what the database has beside it."""
    following: dict[str, str | None] = dict(
        Model.objects.filter(fallback__isnull=False).values_list("name", "fallback__name")
    )
    setting = [entry for entry in asked.entries["model"] if "fallback" in entry.values]
    following |= {entry.name: entry.values["fallback"] for entry in setting}
    for entry in setting:
        path = [entry.name]
        while (name := following.get(path[-1])) is not None:
            path.append(name)
            if name in path[:-1] or len(path) > FALLBACKS_MAX:
                yield f"{entry.place}.fallback: expected an end to the fallbacks, got {' → '.join(path)}"
                break


def _write(entries: list[Entry], rows: Rows) -> Iterator[Change]:
    """Makes and changes the rows of one table, but for fallbacks. Raises Refused."""
    problems: list[str] = []
    for entry in entries:
        values = {
            key: _resolved(entry.table, key, value, rows) for key, value in entry.values.items() if key != "fallback"
        }
        row = rows[entry.table.name].get(entry.name)
        is_new = row is None
        if row is None:
            row = rows[entry.table.name][entry.name] = entry.table.model(name=entry.name)
        fields = _changed(entry.table, row, values, is_new=is_new)
        if fields or is_new:
            problems += _saved(entry, row, None if is_new else [entry.table.attribute(key) for key, *_ in fields])
            yield Change(CREATE if is_new else CHANGE, entry.table.name, entry.name, tuple(fields))
    if problems:
        raise Refused(problems)


def _with_fallbacks(changes: list[Change], asked: Configuration, rows: Rows) -> list[Change]:
    """Sets the fallbacks, once all models are there, and puts each beside the other changes of its model."""
    table, fields, problems = TABLES["model"], {}, []
    entries = [entry for entry in asked.entries["model"] if "fallback" in entry.values]
    for entry in entries:
        values = {"fallback": _resolved(table, "fallback", entry.values["fallback"], rows)}
        fields[entry.name] = _changed(table, rows["model"][entry.name], values, is_new=False)
    for entry in entries:
        if fields[entry.name]:
            problems += _saved(entry, rows["model"][entry.name], ["fallback"])
    if problems:
        raise Refused(problems)
    at = {change.name: index for index, change in enumerate(changes) if change.table == "model"}
    for name, more in fields.items():
        if more and name in at:
            before = changes[at[name]]
            changes[at[name]] = Change(before.verb, "model", name, (*before.fields, *more))
        elif more:
            changes.append(Change(CHANGE, "model", name, tuple(more)))
    return changes


def _resolved(table: Table, key: str, value: Any, rows: Rows) -> Any:
    to = dict(table.references()).get(key)
    return rows[to][value] if to is not None and value is not None else value


def _changed(table: Table, row: Row, values: dict[str, Any], *, is_new: bool) -> list[tuple[str, str, str]]:
    """Sets `values`; returns those that were others before, or all where the row is new."""
    fields = []
    for key in table.keys:
        if key in values:
            before = None if is_new else getattr(row, table.attribute(key))
            setattr(row, table.attribute(key), values[key])
            if is_new or before != values[key]:
                fields.append((key, shown(table, key, before), shown(table, key, values[key])))
    return fields


def _saved(entry: Entry, row: Row, changed: list[str] | None) -> list[str]:
    """Writes the row, or returns what is wrong with it. `changed`: the columns that changed; None of a new one."""
    try:
        row.full_clean()
    except ValidationError as error:
        return [
            f"{entry.place}{'' if key == NON_FIELD_ERRORS else '.' + key}: {' '.join(said)}"
            for key, said in error.message_dict.items()
        ]
    row.save(update_fields=changed)
    return []


def _prune(asked: Configuration) -> list[Change]:
    """Clients first, tiers last; again while something went, since that may have been all that referred to another."""
    changes: list[Change] = []
    for table in reversed(TABLES.values()):
        unnamed = table.model._default_manager.exclude(name__in=asked.named(table.name)).order_by("name")
        left: list[Any] = list(unnamed.select_for_update(of=("self",)))  # nobody begins to refer to it until the end
        while left:
            kept = {row.pk: note for row in left if (note := _referring(row))}
            changes += [_removed(table, row) for row in left if row.pk not in kept]
            if len(kept) == len(left):
                changes += [Change(KEEP, table.name, row.name, note=f"{kept[row.pk]} refer to it") for row in left]
                break
            left = [row for row in left if row.pk in kept]
    return changes


def _referring(row: Any) -> str:
    """What would be lost or left dangling, in words; "" if nothing."""
    found = []
    for relation in row._meta.get_fields(include_hidden=True):
        if not (relation.auto_created and relation.one_to_many):
            continue
        is_fallback = relation.related_model is Model and relation.field.name == "fallback"
        by = relation.related_model._default_manager.filter(**{relation.field.name: row})
        if (relation.on_delete is PROTECT or is_fallback) and by.exists():
            found.append(str(relation.related_model._meta.verbose_name_plural))
    return " and ".join(dict.fromkeys(found))


def _removed(table: Table, row: Any) -> Change:
    keys = ApiKey.objects.filter(client=row).count() if isinstance(row, Client) else 0
    row.delete()
    return Change(REMOVE, table.name, row.name, note=f"with its {keys} API key{'s' * (keys != 1)}" if keys else "")
