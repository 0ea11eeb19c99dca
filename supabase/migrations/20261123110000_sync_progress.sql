-- How much went over, counted for good, and how far the sending of the whole history is, so that it goes on where it was.
-- A running older version sees two new tables.

create table sync.row_counts (
  -- push, pull or inbox
  direction text not null,
  table_name text not null,
  -- sent, deleted, parked, shortened …
  outcome text not null,
  rows bigint not null,
  primary key (direction, table_name, outcome)
);

create table sync.push_progress (
  table_name text primary key,
  -- The key of the last row that is in the project; null where none is yet.
  last_id uuid,
  last_time timestamptz,
  rows_sent bigint not null default 0,
  rows_total bigint not null,
  is_done boolean not null default false
);

alter table sync.row_counts enable row level security;
alter table sync.push_progress enable row level security;
create policy app on sync.row_counts to pugmark_app using (true) with check (true);
create policy app on sync.push_progress to pugmark_app using (true) with check (true);
grant select, insert, update on sync.row_counts to pugmark_app;
grant select, insert, update, delete on sync.push_progress to pugmark_app;

-- A row that was set aside is sent once more as a change like any other.
grant insert (table_name, is_deleted, ids, times) on sync.changes to pugmark_app;
