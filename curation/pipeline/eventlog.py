"""Dagster's event log in SQLite, with connections that stay open.

Dagster opens three connections for an event and closes them again; SQLite folds its write-ahead log
into the database whenever the last one is closed, so that each event waits for the disk several
times. Here the connections to the index and to the runs used last stay open, events that come
together are written together, and a commit does not wait for the disk: nothing is lost when a
process dies, and when the machine loses power at most the last events, which tell of artifacts and
are none. Files and tables are Dagster's own: processes with this class and with Dagster's read and
write the same.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, BATCH_WRITABLE_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool, StaticPool

OPEN = 4  # databases whose connection stays open: the index, and the runs used last
TOGETHER = 500  # events at most that are handed over together


# What dagster.yaml of a new Dagster home gets. It is no part of the project's own, which Dagster's
# commands read for instances that are elsewhere as well.
SETTINGS = f"""
# Dagster's event log on SQLite, in the place and the format it always has, with connections that
# stay open: an event costs a millisecond or two instead of ten. Not beside a `storage` of your own.
event_log_storage:
  module: {__name__}
  class: OpenEventLog
  config: {{}}
"""


class OpenEventLog(SqliteEventLogStorage):
    """Dagster's event log on SQLite, without new connections for every event.

    Named in the home's ``dagster.yaml`` (:data:`SETTINGS`); ``base_dir`` is ``history/runs`` in
    ``DAGSTER_HOME`` if unset.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[tuple[int, str], Engine] = OrderedDict()
        self._there: set[str] = set()
        # Dagster hands over events together only where this is set
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(TOGETHER))
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of its settings."""
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> OpenEventLog:
        """Make one from its settings.

        Raises
        ------
        dagster.DagsterInvariantViolationError
            If neither ``base_dir`` nor ``DAGSTER_HOME`` says where the files are.
        """
        folder, home = config_value.get("base_dir"), os.environ.get("DAGSTER_HOME")
        if folder is None and home is None:
            raise dg.DagsterInvariantViolationError(
                f"{cls.__name__}: set DAGSTER_HOME, or base_dir in dagster.yaml"
            )
        return cls(folder or str(Path(str(home), "history", "runs")), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            try:
                with engine.connect() as connection, connection.begin():
                    yield connection
            except BaseException:
                engine.dispose()  # its file may be gone or another: the next one opens it anew
                raise

    def _engine(self, shard: str) -> Engine:
        if shard not in self._initialized_dbs:
            # as Dagster does it: several processes may make the tables at once
            self._initdb(
                db.create_engine(
                    self.conn_string_for_shard(shard),
                    poolclass=NullPool,
                    connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
                )
            )
            self._initialized_dbs.add(shard)
        key = (os.getpid(), shard)  # a connection must not be used on the other side of a fork
        if key not in self._engines:
            self._engines[key] = self._new_engine(shard)
        self._engines.move_to_end(key)
        while len(self._engines) > OPEN:
            _, oldest = self._engines.popitem(last=False)
            oldest.dispose()
        return self._engines[key]

    def _new_engine(self, shard: str) -> Engine:
        engine = db.create_engine(
            self.conn_string_for_shard(shard),
            poolclass=StaticPool,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        db.event.listen(engine, "connect", _do_not_wait_for_the_disk)
        return engine

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run together.

        Of each asset and kind of event only the last makes the asset's own row: what is left when
        they are stored one by one.
        """
        kinds = {event.dagster_event_type for event in events}
        if len({event.run_id for event in events}) > 1 or not kinds <= BATCH_WRITABLE_EVENTS:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with self.index_transaction() as connection:
            added = [connection.execute(SqlEventLogStorageTable.insert(), row) for row in rows]
            numbered: list[tuple[EventLogEntry, int]] = [
                (event, _number(result)) for event, result in zip(events, added, strict=True)
            ]
            of_assets = [one for one in numbered if one[0].dagster_event_type in ASSET_EVENTS]
            if of_assets:
                self._store_asset_event_tags(connection, *zip(*of_assets, strict=True))
            last = {
                (e.get_dagster_event().asset_key, e.dagster_event_type): (e, i)
                for e, i in of_assets
            }
            for event, number in sorted(last.values(), key=lambda one: one[1]):
                self._store_asset_event(connection, event, number)
        for event, number in numbered:
            if event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, number)

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table; one that is there stays."""
        return self._is_there(table_name, lambda: super(OpenEventLog, self).has_table(table_name))

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        ask = super()._has_asset_key_col_on_connection
        return self._is_there(f"asset_keys.{column_name}", lambda: ask(conn, column_name))

    def _is_there(self, what: str, ask: Any) -> bool:
        if what not in self._there and ask():
            self._there.add(what)
        return what in self._there

    def wipe(self) -> None:
        """Remove all events."""
        self._close()
        super().wipe()

    def dispose(self) -> None:
        """Close what is open."""
        self._close()
        super().dispose()

    def _close(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _do_not_wait_for_the_disk(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def instance_ref(home: Path) -> InstanceRef:
    """Return what opens the Dagster instance of a home, with :class:`OpenEventLog` in it.

    A ``dagster.yaml`` that does not name it has Dagster's class on the same files. Where `storage`
    is set up otherwise it stays as it is.
    """
    ref = InstanceRef.from_dir(str(home))
    had = ref.event_storage_data
    if had is not None and had.class_name == SqliteEventLogStorage.__name__:
        ours = {"module": __name__, "class": OpenEventLog.__name__, "config": {**had.config_dict}}
        with suppress(dg.DagsterInvalidConfigError):
            return InstanceRef.from_dir(str(home), overrides={"event_log_storage": ours})
    return ref


def _number(inserted: db.CursorResult[Any]) -> int:
    key = inserted.inserted_primary_key
    if key is None:
        raise dg.DagsterInvariantViolationError("SQLite gave an event no number")
    return int(key[0])
