-- PostgreSQL: psql -f sample/customers.sql
create table customers (id bigint primary key, name text not null, email text, closed boolean not null default false);
insert into customers values
    (1, 'Ada', 'Ada@Example.com', false),
    (2, 'Grace', 'grace@example.com', false),
    (3, 'Closed', null, true),
    (4, 'Edsger', null, false);
