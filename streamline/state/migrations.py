"""The SQLite store's tables, as a list of steps; a database's `user_version` counts those it has had.

A step that has been released is never changed: a change is a new step at the end.
"""

from __future__ import annotations

# "StrL" in ASCII: tells a state store from another program's SQLite file.
APPLICATION_ID = 0x5374724C

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE bookmarks (
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL,
        value TEXT,                       -- NULL: reset; the row stays, because the epoch must not start again
        run_id TEXT NOT NULL, saved_at TEXT NOT NULL,
        epoch INTEGER NOT NULL, cause TEXT NOT NULL,
        sinks TEXT NOT NULL, replication_method TEXT, replication_key TEXT,
        gap INTEGER NOT NULL DEFAULT 0,
        changes INTEGER NOT NULL DEFAULT 0, -- how many history rows it ever had: says when to prune them
        PRIMARY KEY (pipeline, block, stream)
    );
    CREATE TABLE bookmark_history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL,
        value TEXT, run_id TEXT NOT NULL, saved_at TEXT NOT NULL,
        epoch INTEGER NOT NULL, cause TEXT NOT NULL,
        sinks TEXT NOT NULL, replication_method TEXT, replication_key TEXT
    );
    CREATE INDEX bookmark_history_of_stream ON bookmark_history (pipeline, block, stream, id);
    CREATE TABLE consumed_overrides (
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL, "column" TEXT NOT NULL,
        value TEXT NOT NULL, run_id TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (pipeline, block, stream, "column", value)
    );
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, status TEXT NOT NULL,
        started TEXT NOT NULL, finished TEXT, seconds REAL, pid INTEGER, host TEXT,
        summary TEXT NOT NULL, error TEXT
    );
    CREATE INDEX runs_of_pipeline ON runs (pipeline, started);
    CREATE INDEX runs_by_time ON runs (started);
    CREATE TABLE block_runs (
        run_id TEXT NOT NULL, uuid TEXT NOT NULL, status TEXT NOT NULL, seconds REAL,
        attempts INTEGER NOT NULL, results TEXT NOT NULL, error TEXT,
        PRIMARY KEY (run_id, uuid)
    );
    CREATE TABLE leases (                 -- informs only; the lock is a file's
        pipeline TEXT PRIMARY KEY, run_id TEXT NOT NULL, pid INTEGER NOT NULL, host TEXT NOT NULL, since TEXT NOT NULL
    );
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL, stage TEXT NOT NULL,
        digest BLOB NOT NULL,             -- of the record, which may be too large for an index
        record TEXT NOT NULL, error TEXT NOT NULL, run_id TEXT NOT NULL, time TEXT NOT NULL,
        times INTEGER NOT NULL DEFAULT 1,
        UNIQUE (pipeline, block, stream, stage, digest)
    );
    CREATE TABLE stream_settings (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
        UNIQUE (pipeline, block, stream, key)
    );
    CREATE TABLE schemas (
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL, schema TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (pipeline, block, stream)
    );
    CREATE TABLE cache (
        kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    );
    CREATE TABLE plugin_secrets (
        pipeline TEXT NOT NULL, block TEXT NOT NULL, name TEXT NOT NULL,
        value TEXT NOT NULL, replaces TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (pipeline, block, name)
    );
    """,
    # They go into the blocks' files when the pipeline is next opened, which needs the project.
    "ALTER TABLE stream_settings RENAME TO unmoved_stream_settings;",
    """
    ALTER TABLE runs ADD COLUMN code TEXT;
    ALTER TABLE block_runs ADD COLUMN code TEXT;
    """,
    """
    CREATE TABLE bookmark_destinations (
        pipeline TEXT NOT NULL, block TEXT NOT NULL, stream TEXT NOT NULL,
        destinations TEXT NOT NULL,       -- {sink: identity}, of what has the records before the bookmark
        PRIMARY KEY (pipeline, block, stream)
    );
    """,
    # As in `bookmark_destinations`; null where it was not known.
    "ALTER TABLE bookmark_history ADD COLUMN destinations TEXT;",
    """
    ALTER TABLE dead_letters ADD COLUMN form TEXT NOT NULL DEFAULT 'json';
    ALTER TABLE dead_letters ADD COLUMN topic TEXT;
    ALTER TABLE dead_letters ADD COLUMN "partition" INTEGER;
    ALTER TABLE dead_letters ADD COLUMN "offset" INTEGER;
    ALTER TABLE dead_letters ADD COLUMN key BLOB;
    ALTER TABLE dead_letters ADD COLUMN value BLOB;
    ALTER TABLE dead_letters ADD COLUMN headers TEXT;
    ALTER TABLE dead_letters ADD COLUMN message_time INTEGER;
    ALTER TABLE dead_letters ADD COLUMN trace TEXT;
    CREATE TABLE dead_letter_keys (       -- keys of messages with letters, of which later messages were delivered
        pipeline TEXT NOT NULL, block TEXT NOT NULL, topic TEXT NOT NULL, "partition" INTEGER NOT NULL,
        key BLOB NOT NULL,
        written INTEGER NOT NULL,         -- offset of one of them; the newest
        PRIMARY KEY (pipeline, block, topic, "partition", key)
    );
    """,
    """
    CREATE TABLE keyed_state (            -- of transformer blocks, as it is at the positions of their sources
        pipeline TEXT NOT NULL, block TEXT NOT NULL, source TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (pipeline, block, source, key)
    ) WITHOUT ROWID;
    """,
)
