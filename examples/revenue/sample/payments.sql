-- SQLite: sqlite3 payments.db < sample/payments.sql
create table charges (id text primary key, customer_id integer, amount real, status text, created_at text);
create table refunds (id text primary key, charge_id text, amount real);
insert into charges values
    ('ch_1', 1, 20.0, 'succeeded', '2026-03-01T08:00:00Z'),
    ('ch_2', 1, 5.5, 'succeeded', '2026-03-02T08:00:00Z'),
    ('ch_3', 2, 12.0, 'failed', '2026-03-02T09:00:00Z'),
    ('ch_4', 2, 12.0, 'succeeded', '2026-03-02T09:01:00Z'),
    ('ch_5', 3, 99.0, 'succeeded', '2026-03-03T10:00:00Z');
insert into refunds values ('re_1', 'ch_1', 7.5), ('re_2', 'ch_4', 2.0), ('re_3', 'ch_4', 1.0);
